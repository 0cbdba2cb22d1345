"""Sources on the Hugging Face Hub: what the cache holds, what the Hub says, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, ModelInfo, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from taylor_ops.config.source import HubSource
from taylor_ops.errors import BadInput
from taylor_ops.source.files import WANTED, first_line
from taylor_ops.storage.files import FULL_OR_CLOSED

Ask = Callable[[Callable[[], str]], str]
"""Calls the client of the Hub, and again after errors that pass."""


def once(call: Callable[[], str]) -> str:
    """Call the client of the Hub, which repeats some requests on its own."""
    return call()


def in_the_cache(source: HubSource) -> Path | None:
    """The cached folder of a Hub source, which may lack files. None if nothing was fetched before."""
    try:
        return Path(
            snapshot_download(source.repo_id, revision=source.revision, allow_patterns=WANTED, local_files_only=True)
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def told_by_the_hub(source: HubSource) -> ModelInfo:
    """The Hub's information about a source, with the sizes of its files. Raises `BadInput` if it cannot be read."""
    with hub_refusals_explained(source):
        return HfApi().model_info(source.repo_id, revision=source.revision, files_metadata=True)


def fetch_file(source: HubSource, name: str, folder: Path) -> None:
    """Fetch one file of a Hub source into `folder`. Raises `BadInput` if a gated source stays closed."""
    with hub_refusals_explained(source):
        hf_hub_download(source.repo_id, name, revision=source.revision, local_dir=folder)


@contextmanager
def hub_refusals_explained(source: HubSource) -> Iterator[None]:
    """Turn refusals of the Hub and failures of the network into `BadInput`. An error of a full disk stays as it is."""
    commit = f"{source.repo_id} at {source.revision[:12]}"
    try:
        yield
    except GatedRepoError as error:
        raise BadInput(
            f"{commit} is gated and this account has no access", "accept its terms on the Hub, then set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise BadInput(
            f"{commit} does not exist, or is private",
            "correct `source`, or set HF_TOKEN of an account that may read it",
        ) from error
    except RevisionNotFoundError as error:
        raise BadInput(f"{commit} does not exist: there is no such commit", "correct `source.revision`") from error
    except HFValidationError as error:
        raise BadInput(f"`{source.repo_id}` is not the name of a repository", "correct `source.repo_id`") from error
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise BadInput(
            f"{commit} cannot be fetched: the Hub's answer has another form than expected "
            f"({type(error).__name__}: {first_line(error)})",
            "check HF_ENDPOINT, then run again",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, httpx2.HTTPError) as error:
        if isinstance(error, OSError) and error.errno in FULL_OR_CLOSED:
            raise
        raise BadInput(
            f"{commit} cannot be fetched: {type(error).__name__}: {first_line(error)}",
            "check the network, HF_ENDPOINT and HF_HUB_OFFLINE, then run again",
        ) from error
