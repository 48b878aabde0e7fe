"""The other side of HTTP: one request, one connection, one answer."""

import json
from typing import Any, Final

import attrs
import h11
import trio

FAILURES: Final = (OSError, trio.BrokenResourceError, h11.RemoteProtocolError)
"""What comes instead of an answer."""


@attrs.frozen
class Reply:
    """What a server answers."""

    status: int
    retry_after: float
    data: dict[str, Any]


async def connect(address: str) -> trio.SocketStream:
    """Connect to a server."""
    host, port = address.removeprefix("http://").split(":")
    return await trio.open_tcp_stream(host, int(port))


async def post(address: str, path: str, text: str = "") -> Reply:
    """Send a text; return the answer."""
    http = h11.Connection(h11.CLIENT)
    body = text.encode()
    head = h11.Request(method="POST", target=path, headers=[("Host", "here"), ("Content-Length", str(len(body)))])
    data = (http.send(head) or b"") + (http.send(h11.Data(data=body)) or b"")
    http.send(h11.EndOfMessage())
    async with await connect(address) as stream:
        await stream.send_all(data)
        return await receive(http, stream)


async def receive(http: h11.Connection, stream: trio.SocketStream) -> Reply:
    """Read an answer."""
    status, headers, body = 0, {}, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Response):
            status, headers = event.status_code, dict(event.headers)
        elif isinstance(event, h11.Data):
            body += event.data
        elif not status:
            raise h11.RemoteProtocolError("closed without an answer")
        else:
            return Reply(status, float(headers.get(b"retry-after", 0)), json.loads(body))
