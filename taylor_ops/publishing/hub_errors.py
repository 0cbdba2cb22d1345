"""Errors of the Hub: which of them pass by themselves, and what a person has to change about the others."""

from __future__ import annotations

import re

import httpx2
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers

from taylor_ops.errors import BadInput, ReleaseError, WorkFailed
from taylor_ops.masking import masked, without_signatures

BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that pass by themselves."""

_FULL = (402, 413, 507)
ANOTHER_FORM = (AttributeError, IndexError, KeyError, TypeError)
"""What the client raises, and whoever reads its answer, if the Hub's JSON is valid but of another form."""
_NO_TOKEN = "set HF_TOKEN, or log in with `hf auth login`, or name a Prefect Secret block in `publish.token_secret`"
_AGAIN = "run again: files that arrived are not sent again"


def cause_of(error: BaseException) -> BaseException:
    """The error that the client met, below the errors that it wraps around it."""
    kinds = (httpx2.TransportError, HfHubHTTPError, OfflineModeIsEnabled, LocalTokenNotFoundError)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, kinds):
            return cause
        cause = cause.__cause__
    return error


def status_of(error: BaseException) -> int | None:
    """The status with which the Hub or Xet storage answered. None if there was no answer."""
    cause = cause_of(error)
    if isinstance(cause, HfHubHTTPError):
        return int(cause.response.status_code)
    # The client of Xet storage gives the status in its message only.
    match = re.search(r"HTTP status \w+ error \((\d{3})\b", str(cause))
    return int(match[1]) if match else None


def passes(error: BaseException) -> bool:
    """Whether a request that failed with this error may succeed a little later, unchanged."""
    cause = cause_of(error)
    if isinstance(cause, httpx2.TransportError):
        return not isinstance(cause, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError)
    return status_of(cause) in BUSY


def retry_after(error: BaseException) -> float | None:
    """Seconds that the Hub asks the client to wait. None if it does not ask."""
    cause = cause_of(error)
    return asked_to_wait(cause.response) if isinstance(cause, HfHubHTTPError) else None


def asked_to_wait(response: httpx2.Response) -> float | None:
    """Seconds that a busy Hub asks the client to wait. None if it does not ask."""
    if response.status_code not in BUSY:
        return None
    value, limits = response.headers.get("Retry-After", ""), parse_ratelimit_headers(response.headers)
    if value.isdecimal():
        return float(value)
    return float(limits.reset_in_seconds) if limits is not None and limits.remaining == 0 else None


def explained(error: Exception, repo_id: str, doing: str, permission: str) -> ReleaseError:
    """The error for a person.

    Args:
        error: What the client raised.
        repo_id: Repository, `owner/name`.
        doing: What could not be done, as a verb phrase: `create it`.
        permission: The permission that this needs, which the error names if it is missing.
    """
    cause, status = cause_of(error), status_of(error)
    where = f"{repo_id}: cannot {doing}"
    if isinstance(cause, OfflineModeIsEnabled):
        return BadInput(f"{where}: HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE, or publish to a folder")
    if isinstance(cause, LocalTokenNotFoundError):
        return BadInput(f"{where}: there is no token", _NO_TOKEN)
    answer = words_of(cause)
    if isinstance(cause, ANOTHER_FORM):
        return WorkFailed(
            f"{where}: its answer has another form than expected ({answer})", f"check HF_ENDPOINT, {_AGAIN}"
        )
    if status in _FULL or re.search("quota|storage limit", answer, re.IGNORECASE):
        return WorkFailed(f"{where}: the storage of {repo_id.partition('/')[0]} is full ({answer})", "free or buy some")
    if isinstance(cause, GatedRepoError):
        return BadInput(f"{where}: it is gated and this account has no access", "ask for access on its page")
    if status == 401 and not isinstance(cause, RepositoryNotFoundError):
        return BadInput(f"{where}: the token is not valid (401)", _NO_TOKEN)
    if status in (401, 403):
        return BadInput(
            f"{where}: the token does not allow it; it needs {permission} ({answer})", f"use a token with {permission}"
        )
    if isinstance(cause, RevisionNotFoundError):
        return WorkFailed(f"{where}: the branch or tag is missing; another process may have removed it", _AGAIN)
    if "xet" in answer.lower() and not passes(cause):
        return WorkFailed(
            f"{where}: {answer}", "for a Hub without Xet storage set HF_HUB_DISABLE_XET=1, then run again"
        )
    if status == 404:
        return BadInput(f"{where}: it does not exist, or this account does not see it", "correct the name or the token")
    return WorkFailed(f"{where}: {answer}", f"check the network and HF_ENDPOINT, then {_AGAIN}")


def words_of(error: BaseException) -> str:
    """What the Hub or the network said, in one line without tokens and the signatures of signed addresses."""
    cause = cause_of(error)
    first = next((line.strip() for line in str(cause).splitlines() if line.strip()), "")
    if isinstance(cause, HfHubHTTPError):
        message = without_signatures(masked(cause.server_message or first))
        return f"{cause.response.status_code}: {' '.join(message.split())}"
    return f"{type(cause).__name__}: {without_signatures(masked(first))}" if first else type(cause).__name__
