"""The temporary Prefect server of a run that has no other: it ends when the run ends, however that comes about."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import prefect
from prefect.context import refresh_global_settings_context
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_API_BASE_PATH,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
)

from flows.run.prefect_database import at, empty_database, is_chosen, is_migrated
from taylor_ops.errors import WorkFailed

_SECONDS_BETWEEN_CALLS = 0.1
_SECONDS_TO_END = 5
_WATCH = """
import os, select, shutil, signal, sys
server, folder = int(sys.argv[1]), sys.argv[2]
handle = os.pidfd_open(server) if hasattr(os, "pidfd_open") else None
sys.stdin.buffer.read()
try:
    if handle is None:
        os.kill(server, signal.SIGTERM)
    else:
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        select.select([handle], [], [], 10)
    shutil.rmtree(folder, ignore_errors=True)
except ProcessLookupError:
    pass
"""
# Nobody looks at its pages, and to register the blocks of plugins it would load Dask and Ray.
_SPARED = {
    "PREFECT_UI_ENABLED": "false",
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
}


class TemporaryServer:
    """A server in a process of its own, which ends with this process.

    Its database and its log are in a folder of its own, because a server that runs beside it would lock the one in
    Prefect's home. Only a database that somebody chose is used as it is. The folder stays if the server fails.
    """

    def __init__(self) -> None:
        empty = None if is_chosen() else empty_database()
        self._folder = Path(tempfile.mkdtemp(prefix="taylor-release-server-"))
        self._log = self._folder / "server.log"
        self._failed = False
        environment = os.environ | _SPARED | {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        if empty is not None:
            environment |= at(Path(shutil.copyfile(empty, self._folder / "prefect.db")))
        if empty is not None or is_migrated():
            environment["PREFECT_SERVER_DATABASE_MIGRATE_ON_START"] = "false"
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}{PREFECT_SERVER_API_BASE_PATH.value() or '/api'}"
        # Prefect starts its own in the same way, but loads all of a server into the process of the run for it.
        place = ["--app-dir", str(Path(prefect.__file__).parents[1]), "--host", "127.0.0.1", "--port", str(port)]
        server = ["--factory", "prefect.server.api.server:create_app", "--lifespan", "on", "--log-level", "error"]
        with self._log.open("wb") as log:
            # A session of its own, because Ctrl-C in a terminal goes to every process of the group, and the run has
            # yet to tell the server how it ended.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", *place, *server],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # Prefect logs everything before the functions that end the interpreter are called.
        atexit.register(self.end)
        # The pipe closes with this process, also if a signal or a kill ends it at once.
        self._watch = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCH, str(self.process.pid), str(self._folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def wait(self) -> None:
        """Wait until it answers. Raises `WorkFailed` if it ends before that, or takes too long."""
        last = time.monotonic() + PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
        # Nothing is encrypted on the way, and to read the certificates of this machine takes long.
        with httpx.Client(verify=False, trust_env=False) as client:
            while not self._answers(client):
                ended = self.process.poll()
                if ended is not None or time.monotonic() > last:
                    self._failed = True
                    found = "does not answer" if ended is None else f"ended with status {ended}"
                    raise WorkFailed(
                        f"the temporary Prefect server {found}: its log is {self._log}",
                        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS gives it more time, PREFECT_API_URL names a "
                        "server of your own",
                    )
                time.sleep(_SECONDS_BETWEEN_CALLS)

    def end(self) -> None:
        """End it and remove its folder, or say where its log is if it has ended by itself."""
        ended = self.process.poll()
        if ended is not None and not self._failed:
            self._failed = True
            print(f"the temporary Prefect server ended with status {ended}: its log is {self._log}", file=sys.stderr)
        self.process.terminate()
        try:
            self.process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if not self._failed:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self, client: httpx.Client) -> bool:
        try:
            return client.get(f"{self.url}/health").is_success
        except httpx.TransportError:
            return False


def start_temporary_server() -> TemporaryServer | None:
    """Start a temporary server if no other is configured, and have Prefect use it from now on.

    It needs seconds until it answers, in which this process can load what it computes with.
    """
    if PREFECT_API_URL.value() is not None:
        return None
    server = TemporaryServer()
    # Threads of Prefect read the settings anew, and start a server of their own if these name none. It has no pages.
    os.environ |= {"PREFECT_API_URL": server.url, "PREFECT_UI_URL": ""}
    refresh_global_settings_context()
    return server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
