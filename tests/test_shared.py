"""What is declared as shared behaves as it does, and each access to it is seen."""

from __future__ import annotations

import io
import random
import sqlite3
from collections import Counter, OrderedDict, deque

import pytest
import trio
from race_cases import side_by_side

from stageflow_actors.errors import PipelineValidationError
from stageflow_actors.testing import explore, shared


class Account:
    def __init__(self):
        self.balance = 0


@pytest.mark.parametrize(
    "thing", [{"a": 1}, [1, 2], deque([1]), {1, 2}, OrderedDict(a=1), Counter("aab"), io.StringIO("x")]
)
def test_it_behaves_like_the_object(thing):
    proxy = shared(thing)
    assert isinstance(proxy, type(thing))
    assert repr(proxy) == f"shared({thing!r})"
    assert bool(proxy)
    assert shared(proxy) is proxy


def test_operators_go_through():
    numbers = shared([3, 1])
    numbers += [2]
    numbers.append(5)
    numbers[0] = 4
    assert (len(numbers), numbers[-1], 4 in numbers, sorted(numbers)) == (4, 5, True, [1, 2, 4, 5])
    assert numbers == [4, 1, 2, 5]
    assert numbers + [6] == [4, 1, 2, 5, 6]  # noqa: RUF005 (that is what is tested)
    assert list(reversed(numbers)) == [5, 2, 1, 4]
    del numbers[0]
    assert [*numbers] == [1, 2, 5]
    with pytest.raises(TypeError):
        numbers["a"]
    with pytest.raises(AttributeError):
        numbers.nothing  # noqa: B018
    assert {1} <= shared({1, 2}) | {3}
    assert shared({1}) == shared({1})


def test_what_comes_out_of_it_is_a_part_of_it():
    rows = shared(sqlite3.connect(":memory:"))
    cursor = rows.execute("select 1")
    assert repr(cursor).startswith("shared(<sqlite3.Cursor")
    assert cursor.fetchone() == (1,)
    with rows:
        assert next(rows.execute("select 2")) == (2,)
    rows.close()


def test_objects_of_classes_in_python_need_no_help():
    account = Account()
    assert shared(account) is account


@pytest.mark.parametrize(
    ("thing", "told"),
    [
        (1, "shared state must be an object that can change, not 1"),
        ((1,), "shared state must be an object that can change, not (1,)"),
        (Account, "shared state must be an object that can change, not <class"),
        (len, "shared state must be an object that can change, not <built-in function len>"),
    ],
)
def test_what_cannot_change_is_refused(thing, told):
    with pytest.raises(PipelineValidationError) as caught:
        shared(thing)
    assert told in str(caught.value)


def test_names_of_methods_are_no_text():
    with pytest.raises(PipelineValidationError, match="reads must be names of methods, not 'execute'"):
        shared(random.Random(1), reads="execute")


def count(make, use):
    """Return how many executions there are of two tasks that use something, each in a step of its own."""

    async def program():
        thing = make()

        async def one():
            await trio.lowlevel.checkpoint()
            use(thing, 0)

        async def two():
            await trio.lowlevel.checkpoint()
            use(thing, 1)

        await side_by_side(one, two)

    report = explore(program, strategy="dpor")
    assert report.certificate.method == "dpor"
    return report.certificate.executions


@pytest.mark.parametrize(
    ("make", "use", "executions"),
    [
        (lambda: shared({0: 0, 1: 0}), lambda thing, key: thing.__setitem__(key, 1), 1),
        (lambda: shared({0: 0}), lambda thing, _: thing.__setitem__(0, 1), 2),
        (lambda: shared({}), lambda thing, key: thing.__setitem__(key, 1), 2),  # which comes first can be seen
        (lambda: shared({0: 0}), lambda thing, _: thing[0], 1),
        (lambda: shared([0, 0]), lambda thing, key: thing.__setitem__(key, 1), 1),
        (lambda: shared([0, 0]), lambda thing, _: thing.append(1), 2),
        (lambda: shared([0, 0]), lambda thing, key: len(thing) if key else thing.append(1), 2),
        (lambda: shared(random.Random(1)), lambda thing, _: thing.random(), 2),
        (lambda: shared(random.Random(1), reads=["getstate"]), lambda thing, _: thing.getstate(), 1),
        (lambda: shared(io.StringIO()), lambda thing, _: thing.write("x"), 2),
    ],
)
def test_accesses_that_touch_different_parts_are_independent(make, use, executions):
    assert count(make, use) == executions


def test_a_race_in_what_is_shared_is_found():
    async def program():
        text = shared(io.StringIO())

        async def add(letter):
            written = text.getvalue()
            await trio.lowlevel.checkpoint()
            text.seek(0)
            text.write(written + letter)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(add, "a")
            nursery.start_soon(add, "b")
        assert len(text.getvalue()) == 2

    report = explore(program, strategy="dpor")
    assert report.failure.preemptions == 1
    assert not report.untracked
