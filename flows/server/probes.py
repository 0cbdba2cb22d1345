"""What the command `doctor` looks at on a Prefect server: whether it answers, its work pools and their workers."""

from __future__ import annotations

import httpx
from prefect import get_client
from prefect.client.schemas.objects import WorkerStatus
from prefect.settings import PREFECT_API_URL

from flows.server.connection import server_asked
from taylor_ops.preflight.probed import Probed

_SECONDS = 4.0
_NO_SERVER = "there is no server to have one"


def server() -> Probed:
    """Whether the server answers that PREFECT_API_URL or the profile names."""
    what, url = "server", PREFECT_API_URL.value()
    if not url:
        said = "PREFECT_API_URL is not set: `run` starts a server for itself; `deploy` and `submit` need one"
        return Probed(what=what, state="fine", found=said)
    try:
        answer = httpx.get(f"{url}/health", timeout=_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        said = f"{url} does not answer: {type(error).__name__}"
        remedy = "start it (`prefect server start`), or correct or unset PREFECT_API_URL"
        return Probed(what=what, state="lacking", found=said, remedy=remedy)
    # Behind another path, the pages of a server answer too.
    if answer.is_success and answer.text.strip() == "true":
        return Probed(what=what, state="fine", found=f"{url} answers")
    said = f"{url} answers with status {answer.status_code}, but not as a Prefect server does"
    remedy = "see its log, and whether PREFECT_API_URL ends in /api"
    return Probed(what=what, state="lacking", found=said, remedy=remedy)


def pool() -> Probed:
    """Which work pools the server has."""
    what = "pool"
    if not PREFECT_API_URL.value():
        return Probed(what=what, state="fine", found=_NO_SERVER)
    names = sorted(_workers_by_pool())
    if names:
        return Probed(what=what, state="fine", found=", ".join(names))
    return Probed(what=what, state="warning", found="the server has none", remedy="`taylor-release deploy` makes one")


def worker() -> Probed:
    """How many workers of each pool are online. A run that is submitted waits for one."""
    what = "worker"
    if not PREFECT_API_URL.value():
        return Probed(what=what, state="fine", found=_NO_SERVER)
    online = _workers_by_pool()
    found = ", ".join(f"{number} online in {name}" for name, number in sorted(online.items()) if number)
    if found:
        return Probed(what=what, state="fine", found=found)
    name = next(iter(sorted(online)), "local")
    remedy = f"`prefect worker start --pool {name}` in a checkout"
    return Probed(what=what, state="warning", found="none is online: submitted runs wait", remedy=remedy)


def _workers_by_pool() -> dict[str, int]:
    """The number of workers that are online, by the name of their work pool."""
    with server_asked(), get_client(sync_client=True) as client:
        return {
            pool.name: sum(
                worker.status == WorkerStatus.ONLINE for worker in client.read_workers_for_work_pool(pool.name)
            )
            for pool in client.read_work_pools()
        }
