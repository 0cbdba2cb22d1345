"""The connection to a Prefect server, whose failures a person sees as two lines and not as a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from taylor_ops.errors import BadInput, WorkFailed


@contextmanager
def server_asked() -> Iterator[None]:
    """Raise `BadInput` if no server answers the requests of the block, `WorkFailed` if it answers with an error."""
    try:
        yield
    except httpx.TransportError as error:
        raise BadInput(f"no Prefect server answers: {error}", "start one, and set PREFECT_API_URL to it") from error
    except httpx.HTTPStatusError as error:
        raise WorkFailed(
            f"the Prefect server answers with status {error.response.status_code}: {reason(error)}",
            "see the log of the server, and PREFECT_API_KEY or PREFECT_API_AUTH_STRING if it requires a login",
        ) from error


def reason(error: httpx.HTTPStatusError) -> str:
    """The reason that a server gives for its answer, on one line."""
    try:
        return " ".join(str(error.response.json()["detail"]).split())
    except (ValueError, KeyError, TypeError):
        return " ".join(error.response.text.split())
