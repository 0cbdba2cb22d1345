"""The temporary Prefect server of a run that has no other: it ends when the run ends, however that comes about."""

from __future__ import annotations

import subprocess
import sys

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL

# The pipe to the second process closes with this list.
_watches: list[subprocess.Popen[bytes]] = []
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


def start_temporary_server() -> None:
    """Start a temporary server if no other is configured, and see to it that it ends with this process.

    Prefect ends its server when the interpreter exits, once everything is logged. A signal that ends the process at
    once leaves it running, and so does a kill. Hence a second process watches a pipe, which closes with this process,
    and ends the server then.
    """
    if PREFECT_API_URL.value() is not None or _watches:
        return
    # Prefect has one instance of it, and uses the one that it finds.
    server = SubprocessASGIServer()
    server.start()
    assert server.server_process is not None
    command = [sys.executable, "-c", _WATCH, str(server.server_process.pid)]
    # A session of its own, because Ctrl-C in a terminal goes to every process of the group.
    _watches.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))
