"""Runs the stand-in for the Hub on a free port of loopback, in a thread of this process or as a program of its own."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from tests.support.loopback_hub.app import Hub
from tests.support.loopback_hub.store import Account, Store

WRITER = "hf_LoopbackWriter0000000000000000000"
READER = "hf_LoopbackReader0000000000000000000"
STRANGER = "hf_LoopbackStranger00000000000000000"
ACCOUNTS = {
    WRITER: Account("writer", orgs=("org",)),
    READER: Account("reader", role="read", orgs=("org",)),
    STRANGER: Account("stranger"),
}


@contextmanager
def running(folder: Path, chunk_size: int | None = None) -> Iterator[Hub]:
    """A stand-in that serves from a thread while open; its address is `hub.endpoint`."""
    hub, server, listening = _server(folder, chunk_size)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
        listening.close()


def _server(folder: Path, chunk_size: int | None) -> tuple[Hub, uvicorn.Server, socket.socket]:
    # asyncio sends without delay only on a socket that names its protocol.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    hub = Hub(Store(folder), dict(ACCOUNTS), chunk_size)
    hub.endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
    app: Any = hub
    config = uvicorn.Config(app, log_level="critical", lifespan="off", access_log=False)
    return hub, uvicorn.Server(config), listening


def main(folder: str, chunk_size: str = "") -> None:
    """Serve until killed, and say the address first: for a program that shall not share a process with it."""
    hub, server, listening = _server(Path(folder), int(chunk_size) if chunk_size else None)
    print(hub.endpoint, flush=True)
    server.run(sockets=[listening])


if __name__ == "__main__":
    main(*sys.argv[1:])
