"""Which modules keep state that tasks could share without anybody seeing it."""

from __future__ import annotations

import sys
from typing import Final

_OWN: Final = __name__.partition(".")[0]

PURE: Final = frozenset(
    {
        "__future__",
        "_abc",
        "_bisect",
        "_collections",
        "_collections_abc",
        "_datetime",
        "_functools",
        "_heapq",
        "_json",
        "_operator",
        "_pytest",
        "_struct",
        "abc",
        "ast",
        "attr",
        "attrs",
        "base64",
        "binascii",
        "bisect",
        "builtins",
        "calendar",
        "cmath",
        "codecs",
        "collections",
        "colorsys",
        "contextlib",
        "contextvars",
        "copy",
        "copyreg",
        "csv",
        "dataclasses",
        "datetime",
        "difflib",
        "dis",
        "enum",
        "errno",
        "exceptiongroup",
        "fractions",
        "functools",
        "genericpath",
        "graphlib",
        "hashlib",
        "heapq",
        "hmac",
        "html",
        "hypothesis",
        "inspect",
        "ipaddress",
        "itertools",
        "json",
        "keyword",
        "linecache",
        "locale",
        "logging",
        "math",
        "ntpath",
        "numbers",
        "opcode",
        "operator",
        "outcome",
        "pickle",
        "posixpath",
        "pprint",
        "random",
        "pytest",
        "re",
        "reprlib",
        "sniffio",
        "statistics",
        "string",
        "stringprep",
        "struct",
        "sysconfig",
        "textwrap",
        "time",
        "token",
        "tokenize",
        "traceback",
        "trio",
        "types",
        "typing",
        "typing_extensions",
        "unicodedata",
        "unittest",
        "urllib",
        "uuid",
        "warnings",
        "zlib",
        "zoneinfo",
    }
)
"""Modules whose functions keep nothing that a program's tasks could share through them, or that concerns no program."""

HARMLESS: Final[dict[str, frozenset[str]]] = {
    "io": frozenset({"BytesIO", "StringIO", "SEEK_CUR", "SEEK_END", "SEEK_SET"}),
    "os": frozenset({"curdir", "linesep", "path", "sep"}),
    "sqlite3": frozenset({"Connection", "Cursor", "Error", "IntegrityError", "OperationalError", "Row", "connect"}),
    "threading": frozenset({"Condition", "Event", "Lock", "RLock", "Semaphore"}),
}
"""What of other modules only makes objects, whose state is another matter, or has none."""

UNSEEN_BUILTINS: Final = frozenset({"__import__", "compile", "eval", "exec", "globals", "input", "locals", "open"})
"""Functions that reach what no name shows."""


def get_root(module: str | None) -> str:
    """Return the package that a module is in."""
    return (module or "").partition(".")[0]


def is_pure(module: str | None) -> bool:
    """Return whether a module is known to keep no state of a program's."""
    return get_root(module) in PURE or get_root(module) == _OWN


def is_standard(module: str | None) -> bool:
    """Return whether a module is of Python's own library."""
    return get_root(module) in sys.stdlib_module_names
