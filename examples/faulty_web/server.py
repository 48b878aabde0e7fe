"""A web server on 127.0.0.1 that does what servers do on a bad day, and counts what it is asked."""

import socket
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import attrs
import h11
import trio

from .faults import Fault, Faults

NOT_HTTP: Final = b"\x16\x03\x01\x00\xa5 is this the right port?\r\n\r\n"
LINGER_0: Final = struct.pack("ii", 1, 0)
"""Close with a reset instead of an orderly end."""


@attrs.frozen
class Page:
    """What a path holds."""

    body: bytes
    content_type: str = "application/json"


@attrs.frozen
class Reply:
    """What a request is answered with."""

    status: int
    page: Page
    fault: Fault | None = None
    retry_after: float | None = None


@attrs.frozen
class Budget:
    """How many requests a window of time allows; the next are answered with `429` until it is over."""

    requests: int
    window: float
    """Seconds."""


@attrs.frozen
class ServerStatistics:
    """What a server has counted so far."""

    requests: int
    current: int
    """Requests that are being answered."""
    max_current: int
    refused: int
    """Requests over the budget."""
    asked: Mapping[str, int]
    """Requests within the budget, by path."""
    faults: Mapping[Fault, int]


class ClientGoneError(Exception):
    """The client did not wait for the answer."""


class FaultyServer:
    """Serves pages, with faults.

    Args:
        find: Returns the page of a path, or None where there is none.
        faults: What goes wrong.
        budget: How many requests are taken in which time; any number by default.
    """

    def __init__(self, find: Callable[[str], Page | None], faults: Faults, budget: Budget | None = None) -> None:
        self._find = find
        self._faults = faults
        self._budget = budget
        self._window_ends = 0.0
        self._left = 0
        self._current = 0
        self._max_current = 0
        self._refused = 0
        self._asked: Counter[str] = Counter()
        self._occurred: Counter[Fault] = Counter()

    async def serve(self, *, task_status: trio.TaskStatus[str]) -> None:
        """Serve until cancelled. Meant for `nursery.start`, which gets the server's address."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        host, port = listeners[0].socket.getsockname()
        started = partial(trio.serve_listeners, self._converse, listeners)
        async with trio.open_nursery() as nursery:
            await nursery.start(started)
            task_status.started(f"http://{host}:{port}")

    def statistics(self) -> ServerStatistics:
        """Return what has been counted so far."""
        return ServerStatistics(
            requests=self._asked.total() + self._refused,
            current=self._current,
            max_current=self._max_current,
            refused=self._refused,
            asked=dict(self._asked),
            faults=dict(self._occurred),
        )

    async def _converse(self, stream: trio.SocketStream) -> None:
        """Answer the requests of one connection, until either side ends it."""
        http = h11.Connection(h11.SERVER)
        try:
            while (path := await _read_path(stream, http)) is not None:
                self._current += 1
                self._max_current = max(self._max_current, self._current)
                try:
                    reply = await self._prepare(path, stream, http)
                finally:
                    # Before the answer goes out: the client may send its next request as soon as it has it.
                    self._current -= 1
                if not await _send(reply, stream, http):
                    return
                http.start_next_cycle()
        except (ClientGoneError, trio.BrokenResourceError, h11.RemoteProtocolError):
            return  # what clients do must not end the server

    async def _prepare(self, path: str, stream: trio.SocketStream, http: h11.Connection) -> Reply:
        """Wait as long as the answer takes, and return it."""
        wait = self._charge()
        if wait is not None:
            self._refused += 1
            return Reply(429, Page(b'{"error": "over budget"}'), retry_after=wait)
        self._asked[path] += 1
        asked = self._asked[path]
        fault = self._faults.course(path).fault(asked)
        if fault is not None:
            self._occurred[fault] += 1
        seconds = self._faults.delay(path, asked) + (self._faults.slow if fault is Fault.SLOW else 0)
        await _watch(stream, http, float("inf") if fault is Fault.HANG else seconds)
        if fault is Fault.ERROR:
            return Reply(500, Page(b'{"error": "something broke"}'))
        if fault is Fault.BUSY:
            return Reply(429, Page(b'{"error": "busy"}'), retry_after=self._faults.wish(path, asked))
        page = self._find(path)
        if page is None:
            return Reply(404, Page(b'{"error": "no such page"}'), fault)
        return Reply(200, page, fault)

    def _charge(self) -> float | None:
        """Take a request from the budget; return None, or where it is spent, the seconds until there is a new one."""
        if self._budget is None:
            return None
        now = trio.current_time()
        if now >= self._window_ends:
            self._window_ends = now + self._budget.window
            self._left = self._budget.requests
        if not self._left:
            return self._window_ends - now
        self._left -= 1
        return None


async def _read_path(stream: trio.SocketStream, http: h11.Connection) -> str | None:
    """Read one request and return what it asks for, or None at the end of the connection."""
    path = None
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Request):
            path = event.target.decode("ascii")
        elif isinstance(event, h11.EndOfMessage):
            return path
        elif isinstance(event, h11.ConnectionClosed):
            return None


async def _watch(stream: trio.SocketStream, http: h11.Connection, seconds: float) -> None:
    """Wait, unless the client goes away meanwhile: then nobody is being served any more."""
    with trio.move_on_after(seconds):
        while data := await stream.receive_some():
            http.receive_data(data)  # a next request, too early
        raise ClientGoneError


async def _send(reply: Reply, stream: trio.SocketStream, http: h11.Connection) -> bool:
    """Send an answer, or what a fault makes of it; return whether the connection can go on."""
    if reply.fault is Fault.RESET:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        return False
    if reply.fault is Fault.GARBAGE:
        await stream.send_all(NOT_HTTP)
        return False
    body = reply.page.body
    headers = [("Content-Type", reply.page.content_type), ("Content-Length", str(len(body)))]
    if reply.retry_after is not None:
        # RFC 9110 has whole seconds here; nobody wants to wait that long for an example.
        headers.append(("Retry-After", f"{reply.retry_after:.3f}"))
    head = http.send(h11.Response(status_code=reply.status, headers=headers)) or b""
    if reply.fault is Fault.TRUNCATED:
        await stream.send_all(head + body[: len(body) // 2])
        return False
    data, end = http.send(h11.Data(data=body)) or b"", http.send(h11.EndOfMessage()) or b""
    await stream.send_all(head + data + end)
    return http.our_state is h11.DONE and http.their_state is h11.DONE
