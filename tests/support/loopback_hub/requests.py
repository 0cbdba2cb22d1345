"""Requests and answers of the stand-in for the Hub, and how a connection ends in the middle of one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_CHUNK = 1 << 20


class Gone(Exception):
    """The client left."""


@dataclass
class Request:
    """One request. path: as it was sent, with quoted references."""

    scope: dict[str, Any]
    receive: Receive

    @property
    def method(self) -> str:
        """GET, HEAD, POST, PUT or DELETE."""
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        """The raw path, where a quoted slash is still quoted."""
        return bytes(self.scope["raw_path"]).decode("ascii").partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """The first value of each parameter in the address."""
        return {name: values[0] for name, values in parse_qs(self.scope["query_string"].decode()).items()}

    def header(self, name: str) -> str | None:
        """The value of a header, where it was sent."""
        wanted = name.lower().encode()
        return next((value.decode() for key, value in self.scope["headers"] if key == wanted), None)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        more = True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Gone
            yield message.get("body", b"")
            more = message.get("more_body", False)

    async def body(self) -> bytes:
        """All of the body."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def json(self) -> Any:
        """The body as JSON; nothing for an empty one."""
        body = await self.body()
        return json.loads(body) if body else {}


@dataclass
class Answer:
    """One answer. content: bytes, a JSON value, or a file of which `span` is sent."""

    content: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    span: tuple[int, int] | None = None

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return self.span[1] - self.span[0] if self.span else len(self.encoded)

    @property
    def encoded(self) -> bytes:
        """The body, where it is no file."""
        return self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()

    async def send(self, send: Send, without_body: bool = False, half: bool = False) -> None:
        """Send it all, or only its first half, after which the connection is to be cut."""
        kind = "application/octet-stream" if isinstance(self.content, bytes | Path) else "application/json"
        headers = {"content-type": kind, "content-length": str(self.length)} | self.headers
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": pairs})
        if without_body:
            await send({"type": "http.response.body", "body": b""})
            return
        sent = self.length // 2 if half else self.length
        if isinstance(self.content, Path):
            assert self.span is not None
            await _send_file(send, self.content, self.span[0], sent)
        else:
            await send({"type": "http.response.body", "body": self.encoded[:sent], "more_body": True})
        if not half:
            await send({"type": "http.response.body", "body": b""})


async def _send_file(send: Send, path: Path, start: int, length: int) -> None:
    with path.open("rb") as stream:
        stream.seek(start)
        while length > 0:
            chunk = stream.read(min(_CHUNK, length))
            length -= len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})


def cut(send: Send) -> None:
    """End the connection at once, as a network does that goes away."""
    cycle = getattr(send, "__self__", None)
    assert cycle is not None, "the application must be the one that uvicorn calls"
    cycle.transport.abort()
