"""The temporary Prefect server of a run that has no other: it ends when the run ends, however that comes about."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL

_WATCH = """
import os, signal, sys
server = int(sys.argv[1])
handle = os.pidfd_open(server) if hasattr(os, "pidfd_open") else None
sys.stdin.buffer.read()
try:
    if handle is None:
        os.kill(server, signal.SIGTERM)
    else:
        signal.pidfd_send_signal(handle, signal.SIGTERM)
except ProcessLookupError:
    pass
"""


@contextmanager
def temporary_server() -> Iterator[None]:
    """Start a temporary server if no other is configured, and end it with this process.

    Prefect ends its server when the interpreter exits. A signal that ends the process at once leaves it running, and so
    does a kill. Hence a second process watches a pipe, which closes with this one, and ends the server then.
    """
    if PREFECT_API_URL.value() is not None:
        yield
        return
    # Prefect has one instance of it, and takes that which it finds.
    server = SubprocessASGIServer()
    server.start()
    assert server.server_process is not None
    command = [sys.executable, "-c", _WATCH, str(server.server_process.pid)]
    # A session of its own: Ctrl-C in a terminal goes to every process of the group.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        try:
            yield
        finally:
            server.stop()
