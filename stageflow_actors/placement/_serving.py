"""The inside of a worker process: orders come in, what came of them goes out, until nobody is above it any more."""

from __future__ import annotations

import multiprocessing
import os
import signal
import struct
import sys
import threading
from typing import TYPE_CHECKING, Final

from ._parcel import fulfil

if TYPE_CHECKING:
    import socket

HEADER: Final = struct.Struct("!Q")
"""Before each message: how many bytes it has."""


def serve(channel: socket.socket) -> None:
    """Be a worker: fulfil one order after the other, until the channel is closed.

    Args:
        channel: Where orders come from, and replies go.
    """
    _begin(channel)
    try:
        while (order := _receive(channel)) is not None:
            _send(channel, fulfil(order))
    except ConnectionError:
        pass  # nobody is there any more


def _begin(channel: socket.socket) -> None:
    """Belong to no terminal, so that Ctrl-C is the run's affair alone; and have a group, to be killed with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # `_workers._start` blocked it
        os.setsid()
    channel.set_inheritable(False)  # or what a stage starts would keep it open
    threading.Thread(target=_watch_parent, name="watches the process above", daemon=True).start()


def _watch_parent() -> None:
    """End this process, and what it has started, when the one above is gone, even in the middle of a stage."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    if sys.platform == "win32":
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        os.killpg(0, signal.SIGKILL)


def _send(channel: socket.socket, message: bytes) -> None:
    channel.sendall(HEADER.pack(len(message)))
    channel.sendall(message)


def _receive(channel: socket.socket) -> bytearray | None:
    """Return the next message, or None where there is none any more."""
    header = _read(channel, HEADER.size)
    return None if header is None else _read(channel, HEADER.unpack(header)[0])


def _read(channel: socket.socket, count: int) -> bytearray | None:
    found = bytearray(count)
    rest = memoryview(found)
    while rest:
        read = channel.recv_into(rest)
        if not read:
            return None
        rest = rest[read:]
    return found
