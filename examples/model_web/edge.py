"""HTTP on 127.0.0.1, as an actor. One request a connection: a real service takes a web framework for this."""

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final, Self

import attrs
import h11
import trio

from stageflow_actors import StageContext

MAX_BODY: Final = 64 * 1024
"""Bytes."""

PATIENCE: Final = 2.0
"""Seconds that a client may take to send its request."""


@attrs.frozen
class Request:
    """What a client asks."""

    method: str
    path: str
    body: bytes


@attrs.frozen
class Answer:
    """What it is told."""

    status: int
    data: Mapping[str, Any]
    retry_after: int | None = None
    """Seconds."""


class Edge:
    """Takes connections while it is up; when it is stopped, those that are there get their answers first.

    Ask it for its `address`.
    """

    def __init__(self, answer: Callable[[Request], Awaitable[Answer]], port: int) -> None:
        self._answer = answer
        self._port = port

    async def __aenter__(self) -> Self:
        listeners = await trio.open_tcp_listeners(self._port, host="127.0.0.1")
        host, port = listeners[0].socket.getsockname()
        self._address = f"http://{host}:{port}"
        async with AsyncExitStack() as stack:
            self._nursery = await stack.enter_async_context(trio.open_nursery())
            self._accepting = await self._nursery.start(self._accept, listeners)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> bool | None:
        self._accepting.cancel()
        return await self._stack.__aexit__(*error)  # type: ignore[arg-type]

    async def execute(self, ctx: StageContext) -> dict[str, Any]:
        return {"address": self._address}

    async def _accept(
        self, listeners: list[trio.SocketListener], *, task_status: trio.TaskStatus[trio.CancelScope]
    ) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await trio.serve_listeners(self._converse, listeners, handler_nursery=self._nursery)

    async def _converse(self, stream: trio.SocketStream) -> None:
        http = h11.Connection(h11.SERVER)
        try:
            try:
                with trio.fail_after(PATIENCE):
                    request = await _read(stream, http)
            except trio.TooSlowError:
                answer: Answer | None = Answer(408, {"error": f"send the request within {PATIENCE:g} s"})
            except h11.RemoteProtocolError as error:
                answer = Answer(error.error_status_hint, {"error": str(error)})
            else:
                answer = await self._answer_unless_gone(request, stream)
            if answer is not None:
                await _send(answer, stream, http)
        except trio.BrokenResourceError:
            return  # what clients do must not end the server

    async def _answer_unless_gone(self, request: Request, stream: trio.SocketStream) -> Answer | None:
        """Find the answer; a client that hangs up gets none, and its request is not worked on if it is still queued."""
        answer = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, stream, nursery.cancel_scope)
            answer = await self._answer(request)
            nursery.cancel_scope.cancel()
        return answer


async def _watch(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    try:
        while await stream.receive_some():
            pass  # nothing is expected of it any more
    except trio.BrokenResourceError:
        pass
    scope.cancel()


async def _read(stream: trio.SocketStream, http: h11.Connection) -> Request:
    method, path, body = "", "", bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Request):
            method, path = event.method.decode(), event.target.decode()
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                raise h11.RemoteProtocolError(f"a text has at most {MAX_BODY:,} bytes", error_status_hint=413)
        elif isinstance(event, h11.EndOfMessage):
            return Request(method, path, bytes(body))
        else:  # it has closed the connection, and asked nothing
            raise trio.BrokenResourceError


async def _send(answer: Answer, stream: trio.SocketStream, http: h11.Connection) -> None:
    body = json.dumps(answer.data, ensure_ascii=False).encode() + b"\n"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
    if answer.retry_after is not None:
        headers.append(("Retry-After", str(answer.retry_after)))
    head = http.send(h11.Response(status_code=answer.status, headers=headers)) or b""
    await stream.send_all(head + (http.send(h11.Data(data=body)) or b""))
