"""How errors travel between processes: with all that pickle leaves out of them, and never without being told of.

A class of errors is rarely made with pickle in mind: its `__init__` takes what `args` does not hold, or adds to it. So
errors are written as they are, and read without calling anything of their classes, unless these say how they are
pickled. What they are linked to (tracebacks, causes, contexts) follows after them, link by link: that it cannot be
pickled or read, or leads back to them, or is a long way from them, does not matter to the error itself.
"""

from __future__ import annotations

import ast
import io
import pickle
import sys
import traceback
from contextlib import suppress
from types import CodeType, MemberDescriptorType, TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import attrs

from stageflow_actors._bag import StageFailure, describe_error
from stageflow_actors.errors import RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_E = TypeVar("_E", bound=BaseException)

_LINKS: Final = ("__traceback__", "__cause__", "__context__", "__suppress_context__")
"""What an error is linked to, in the order in which it is set: a cause suppresses the context."""
_BASE: Final[dict[str, Any]] = dict(vars(BaseException))
"""Past these descriptors nothing of an error's class is called: some classes let nothing of theirs be set."""
_WRITTEN: Final = vars(OSError)["characters_written"]
_EDGE_FRAMES: Final = 500
"""How many frames are kept at each end of a traceback: a recursion may have made a million."""


def tell(error: _E, how: Callable[[_E], str] = describe_error) -> str:
    """Return what can be said of an error, whatever its `__str__` raises."""
    try:
        return how(error)
    except BaseException as raised:  # an error that is told of has no say in what becomes of the run
        return f"<{type(error).__qualname__} whose __str__ raised {type(raised).__qualname__}>"


@final
class _Pickler(pickle.Pickler):
    """Pickles errors as they are, and tracebacks."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.met: list[BaseException] = []
        """The errors among what was pickled."""

    def reducer_override(self, obj: Any) -> Any:
        cls = type(obj)
        if cls is TracebackType:
            return _make_traceback, (_list_frames(obj),)
        if not issubclass(cls, BaseException):
            return NotImplemented
        self.met.append(obj)
        if not _is_plain(cls):
            return NotImplemented
        made_of = (obj.message, obj.exceptions) if issubclass(cls, BaseExceptionGroup) else ()
        state = (_BASE["args"].__get__(obj), vars(obj), dict(_list_set_members(obj)))
        # The state is read when the error is there: what it holds may lead back to it.
        return _make_error, (cls, made_of), state, None, None, _fill_error


def _is_plain(cls: type[BaseException]) -> bool:
    """Return whether a class of errors leaves it to those of Python how it is pickled."""
    owner = getattr(cls.__reduce__, "__objclass__", None)
    return cls.__reduce_ex__ is object.__reduce_ex__ and owner is not None and owner.__module__ == "builtins"


def _make_error(cls: type[BaseException], made_of: tuple[Any, ...]) -> BaseException:
    native: Any = cls
    while native.__module__ != "builtins":
        native = native.__base__
    return native.__new__(cls, *made_of)  # type: ignore[no-any-return]


def _fill_error(error: BaseException, state: tuple[Any, dict[str, Any], dict[str, Any]]) -> None:
    args, fields, members = state
    _BASE["args"].__set__(error, args)
    vars(error).update(fields)
    known = {name: member for name, member, _ in _list_members(type(error))}
    for name, value in members.items():
        known[name].__set__(error, value)


def _list_set_members(error: BaseException) -> Iterator[tuple[str, Any]]:
    for name, member, is_native in _list_members(type(error)):
        with suppress(AttributeError):  # it is not set
            value = member.__get__(error)
            if value is not None or not is_native:  # an OSError without a file name shows one that is None
                yield name, value


def _list_members(cls: type[BaseException]) -> Iterator[tuple[str, Any, bool]]:
    """Iterate over what an error keeps outside of its `__dict__`: its slots, and what constructors written in C set."""
    for base in reversed(cls.__mro__):
        if base is BaseException or base is BaseExceptionGroup:
            continue
        for name, member in vars(base).items():
            if base is AttributeError and name == "obj":
                continue  # it may be anything, and Python leaves it out as well
            if isinstance(member, MemberDescriptorType) or member is _WRITTEN:
                yield name, member, base.__module__ == "builtins"


# Tracebacks


def _list_frames(traceback: TracebackType) -> tuple[tuple[str, str, int, str], ...]:
    """Return file, function, line and module of each frame: in a row, as frames in frames would be too deep to pickle.

    Of many, those in the middle are left out.
    """
    frames = []
    following: TracebackType | None = traceback
    while following is not None:
        code = following.tb_frame.f_code
        module = following.tb_frame.f_globals.get("__name__")
        line = following.tb_lineno or 0  # Python gives some instructions none
        frames.append((code.co_filename, code.co_name, line, module if isinstance(module, str) else "?"))
        following = following.tb_next
    count = len(frames) - 2 * _EDGE_FRAMES
    if count > 1:
        frames[_EDGE_FRAMES:-_EDGE_FRAMES] = [(f"<{count} frames left out>", "...", 1, "?")]
    return tuple(frames)


def _compile_frame() -> CodeType:
    """Return code that gives the frame that it runs in: frames cannot be made in another way.

    It has no columns, as a traceback would underline that part of the line which they are of.
    """
    tree = ast.parse("get_frame()", mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.expr):
            node.col_offset = node.end_col_offset = -1
    return compile(tree, "<frame>", "eval")


_FRAME: Final = _compile_frame()


def _make_traceback(frames: tuple[tuple[str, str, int, str], ...]) -> TracebackType:
    made: TracebackType | None = None
    for filename, name, line, module in reversed(frames):
        code = _FRAME.replace(co_filename=filename, co_name=name, co_qualname=name, co_firstlineno=line)
        frame = eval(code, {"__name__": module, "get_frame": sys._getframe})  # noqa: S307, SLF001 (see above)
        made = TracebackType(made, frame, frame.f_lasti, line)
    assert made is not None
    return made


# Values, in which errors come without their links, as pickle has it


def dump(value: object) -> bytes:
    """Return a value as bytes, for `pickle.loads`."""
    packed = io.BytesIO()
    _Pickler(packed).dump(value)
    return packed.getvalue()


# Failures, whose errors come with them


@final
@attrs.frozen
class Parcel:
    """An error, or the failure of a stage, on its way to another process."""

    packed: bytes | None
    """None where it cannot travel."""
    words: bytes
    """It in words, with a `RemoteError`, for where it cannot be read."""


def pack_error(error: BaseException) -> Parcel:
    """Return an error to be sent. Raises nothing."""
    return _seal(error, error, dump(_make_remote_error(error)))


def pack_failure(failure: StageFailure) -> Parcel:
    """Return the failure of a stage to be sent. Raises nothing."""
    attempts = [attrs.evolve(each, error=each.error and _make_remote_error(each.error)) for each in failure.attempts]
    words = StageFailure(failure.stage, _make_remote_error(failure.error), tuple(attempts))
    return _seal(failure, failure.error, dump(words))


def _make_remote_error(error: BaseException) -> RemoteError:
    try:
        shown = "".join(traceback.format_exception(error))
    except BaseException as raised:  # see `tell`
        shown = f"its traceback cannot be shown: {tell(raised)}"
    return RemoteError(tell(error), kind=type(error).__qualname__, traceback=shown)


def _seal(value: object, error: BaseException, words: bytes) -> Parcel:
    packed: bytes | None = None
    try:
        packed = _write(value)
        read = _get_error(_read(packed)[0])  # some classes can be written and not read
        if not isinstance(read, BaseException) or isinstance(read, Exception) is not isinstance(error, Exception):
            packed = None
    except BaseException:  # their code may raise what would end the run, as if the stage had said so
        packed = None
    return Parcel(packed, words)


def _write(value: object) -> bytes:
    packed = io.BytesIO()
    pickler = _Pickler(packed)
    pickler.dump(value)
    with suppress(BaseException):  # likewise; what led to an error is of less weight than that it arrives as it is
        for error in pickler.met:  # there are more with each link
            for name, linked in _list_links(error):
                pickler.dump((error, name, linked))
        pickler.dump(None)
    return packed.getvalue()


def _list_links(error: BaseException) -> Iterator[tuple[str, Any]]:
    for name in _LINKS:
        linked = _BASE[name].__get__(error)
        if linked is not None:
            yield name, linked
    notes = vars(error).get("__notes__")
    if notes is not None:
        yield "__notes__", notes


def _read(packed: bytes) -> tuple[Any, bool]:
    """Return what was written, and whether its errors have all that they are linked to."""
    unpickler = pickle.Unpickler(io.BytesIO(packed))  # noqa: S301 (written by `_write`)
    value = unpickler.load()
    try:
        while (link := unpickler.load()) is not None:
            error, name, linked = link
            if name in _BASE:
                _BASE[name].__set__(error, linked)
            else:
                vars(error)[name] = linked
    except BaseException:  # see `_write`
        return value, False
    return value, True


def _get_error(value: Any) -> Any:
    return value.error if isinstance(value, StageFailure) else value


def open_parcel(parcel: Parcel) -> Any:
    """Return what was sent: as it was, or in words where it cannot be read here."""
    words = pickle.loads(parcel.words)  # noqa: S301 (made above)
    if parcel.packed is None:
        return words
    try:
        value, is_whole = _read(parcel.packed)
    except BaseException:  # see `_seal`
        return words
    if not is_whole:
        fields = vars(_get_error(value))
        note = f"what led to it could not be passed on but in words:\n{_get_error(words).traceback}"
        fields["__notes__"] = [*fields.get("__notes__", ()), note]
    return value
