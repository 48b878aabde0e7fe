"""Errors on their way to another process: that they arrive as they were, or are told of in words."""

from __future__ import annotations

import pickle
import sys
import traceback
from types import SimpleNamespace

import pytest
from error_cases import ERRORS, CodeGroup, HTTPError, SlottedError, annotate, catch, dig, raise_from

from stageflow_actors.errors import RemoteError
from stageflow_actors.placement._errors import dump, open_parcel, pack_error


def travel(error):
    """Return what comes of an error on its way."""
    return open_parcel(pack_error(error))


def show(error):
    """Return an error as it is printed, without marks below the lines: which part of a line it was does not travel."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return [line for line in lines if set(line.strip(" |")) - set("^~")]


# As they were


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_arrives_as_it_was(name):
    error = ERRORS[name]
    there = travel(error)
    assert type(there) is type(error)
    assert (str(there), repr(there), repr(there.args)) == (str(error), repr(error), repr(error.args))
    fields = ("code", "errno", "strerror", "filename", "filename2", "start", "object", "lineno", "text", "msg")
    for field in (*fields, "name", "path", "value", "seconds", "status", "stage", "hint", "__notes__"):
        assert getattr(there, field, None) == getattr(error, field, None), field
    assert show(there) == show(error)


def test_the_parts_of_a_group_are_of_its_kind_also_when_it_is_split():
    there = travel(CodeGroup("g", [ValueError("a"), KeyError("b")], 7))
    kept, rest = there.split(ValueError)
    assert (type(kept), kept.code, type(rest), rest.code) == (CodeGroup, 7, CodeGroup, 7)


def test_what_was_written_partly_is_written():
    error = BlockingIOError(11, "busy", 5)
    assert travel(error).characters_written == 5
    assert not hasattr(travel(OSError(2, "gone")), "characters_written")


def test_a_slot_that_was_not_set_is_not_set():
    assert not hasattr(travel(SlottedError(code=7)), "unset")


def test_the_object_that_lacks_an_attribute_stays_behind():
    error = catch(getattr, SimpleNamespace(callback=lambda: None), "nothing")
    there = travel(error)
    assert (type(there), there.name, there.obj) == (AttributeError, "nothing", None)


def test_errors_among_values_are_made_as_they_were_without_what_they_are_linked_to():
    error = catch(raise_from, HTTPError(500), ValueError("inner"))
    there = pickle.loads(dump({"errors": [error]}))["errors"][0]
    assert (type(there), str(there), there.__cause__, there.__traceback__) == (HTTPError, "HTTP 500", None, None)


# What they are linked to


def dig_for_a_part_of_a_line():
    return [dig(0, ValueError("deep"))]


def list_frames(error):
    return [(frame.filename, frame.name, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]


def test_causes_contexts_and_tracebacks_come_along():
    inner = catch(dig, 2, KeyError("inner"))
    error = catch(raise_from, ValueError("outer"), inner)
    inner.__context__ = OSError("before")
    there = travel(error)
    assert show(there) == show(error)
    assert (type(there.__cause__), type(there.__cause__.__context__)) == (KeyError, OSError)
    assert there.__suppress_context__
    assert not there.__cause__.__suppress_context__
    assert list_frames(there.__cause__) == list_frames(inner)


def test_nothing_is_underlined_that_is_not_known():
    error = catch(dig_for_a_part_of_a_line)
    assert "^" in "".join(traceback.format_exception(error))
    assert "^" not in "".join(traceback.format_exception(travel(error)))


def test_a_context_that_is_suppressed_is_there_and_is_not_shown():
    error = ValueError("outer")
    error.__context__ = KeyError("inner")
    error.__suppress_context__ = True
    there = travel(error)
    assert isinstance(there.__context__, KeyError)
    assert there.__suppress_context__


@pytest.mark.parametrize("depth", [300, 400, 900])
def test_a_deep_error_is_of_its_type_and_has_all_its_frames(depth):
    error = catch(dig, depth, ValueError("deep"))
    there = travel(error)
    assert type(there) is ValueError
    assert list_frames(there) == list_frames(error)


def test_a_recursion_error_is_one():
    error = catch(recurse)
    assert type(travel(error)) is RecursionError


def recurse():
    recurse()


def test_of_thousands_of_frames_those_in_the_middle_are_left_out():
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(5000)
    try:
        error = catch(dig, 2998, ValueError("deep"))
    finally:
        sys.setrecursionlimit(limit)
    frames = list_frames(error)
    assert len(frames) == 3000
    middle = [("<2000 frames left out>", "...", 1)]
    assert list_frames(travel(error)) == [*frames[:500], *middle, *frames[-500:]]


def test_a_long_chain_of_causes_arrives_whole():
    error = None
    for number in range(3000):
        outer = ValueError(number)
        outer.__cause__ = error
        error = outer
    there = travel(error)
    numbers = []
    while there is not None:
        numbers.append(there.args[0])
        there = there.__cause__
    assert numbers == list(range(2999, -1, -1))


def test_errors_that_lead_back_to_each_other_do_so_there():
    one, other = ValueError("one"), ValueError("other")
    one.other, other.other = other, one
    one.__context__ = other
    there = travel(one)
    assert there.other.other is there
    assert there.__context__ is there.other
    group = ExceptionGroup("g", [one])
    one.__context__ = group
    there = travel(group)
    assert there.exceptions[0].__context__ is there


# In words


class LockedError(Exception):
    """Holds what cannot be pickled."""

    def __init__(self):
        super().__init__("locked")
        self.handler = lambda: None


def test_what_led_to_an_error_is_told_in_words_where_it_cannot_travel():
    locked = catch(dig, 1, LockedError())
    error = catch(raise_from, annotate(ValueError("outer")), locked)
    there = travel(error)
    assert (type(there), str(there), there.__cause__) == (ValueError, "outer", None)
    assert list_frames(there) == list_frames(error)
    *notes, note = there.__notes__
    first, _, rest = note.partition("\n")
    assert (notes, first) == (["seen"], "what led to it could not be passed on but in words:")
    assert rest == "".join(traceback.format_exception(error))
    assert error.__notes__ == ["seen"]


def test_an_error_that_cannot_travel_is_told_in_words():
    error = catch(dig, 1, LockedError())
    there = travel(error)
    assert type(there) is RemoteError
    assert (there.problem, there.kind) == ("LockedError: locked", "LockedError")
    assert there.traceback == "".join(traceback.format_exception(error))


readable = {"cause": True, "error": True}


class FussyError(Exception):
    """Can be read where `readable` says so."""

    def __init__(self, what):
        super().__init__(what)

    def __reduce__(self):
        return make_fussy_error, self.args


def make_fussy_error(what):
    if not readable[what]:
        raise KeyboardInterrupt
    return FussyError(what)


def test_an_error_that_cannot_be_read_here_is_told_in_words(monkeypatch):
    parcel = pack_error(catch(dig, 1, FussyError("error")))
    assert type(open_parcel(parcel)) is FussyError
    monkeypatch.setitem(readable, "error", False)
    there = open_parcel(parcel)
    assert (type(there), there.problem) == (RemoteError, "FussyError: error")
    assert "in dig" in there.traceback


def test_a_cause_that_cannot_be_read_here_does_not_change_what_it_led_to(monkeypatch):
    parcel = pack_error(catch(raise_from, ValueError("outer"), FussyError("cause")))
    assert type(open_parcel(parcel).__cause__) is FussyError
    monkeypatch.setitem(readable, "cause", False)
    there = open_parcel(parcel)
    assert (type(there), str(there), there.__cause__) == (ValueError, "outer", None)
    assert "FussyError: cause" in there.__notes__[0]


class EvilError(Exception):
    """What its methods raise, it is made of."""

    def __init__(self, reduced, told):
        self.reduced, self.told = reduced, told

    def __reduce__(self):
        if isinstance(self.reduced, BaseException):
            raise self.reduced
        return self.reduced

    def __str__(self):
        if isinstance(self.told, BaseException):
            raise self.told
        return self.told


@pytest.mark.parametrize(
    ("reduced", "told", "problem"),
    [
        (KeyboardInterrupt(), "told", "EvilError: told"),
        (SystemExit(9), "told", "EvilError: told"),
        ((str, ("x",)), "told", "EvilError: told"),
        ((SystemExit, (9,)), "told", "EvilError: told"),
        ((sys.exit, (9,)), "told", "EvilError: told"),
        (OSError(), RuntimeError(), "EvilError: <EvilError whose __str__ raised RuntimeError>"),
        (OSError(), SystemExit(9), "<EvilError whose __str__ raised SystemExit>"),
    ],
)
def test_an_error_whose_own_code_raises_is_told_in_words_and_ends_nothing(reduced, told, problem):
    there = travel(EvilError(reduced, told))
    assert (type(there), there.problem) == (RemoteError, problem)


class NotesError(Exception):
    @property
    def __notes__(self):
        raise SystemExit(9)


def test_an_error_that_cannot_be_shown_is_told_without_its_traceback():
    error = NotesError("shown")
    error.handler = lambda: None
    there = travel(error)
    assert (type(there), there.problem) == (RemoteError, "NotesError: shown")
    assert there.traceback == "its traceback cannot be shown: SystemExit: 9"
