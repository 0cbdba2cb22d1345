"""Data sets on the Hub and in local folders, read through the library `datasets`.

The library never runs code of a data set. It refuses loading scripts and pickle files, and nothing here asks for them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml

from taylor_ops.config.texts import DatasetSource
from taylor_ops.errors import BadInput
from taylor_ops.storage.files import FULL_OR_CLOSED, sha256_of_tree

_FAILURES = (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError)


def place_of(source: DatasetSource) -> str:
    """The name of the data set in errors."""
    parts = (source.config, source.split)
    return f"data set {source.name or source.folder} ({', '.join(part for part in parts if part)})"


def identity_of(source: DatasetSource) -> dict[str, Any]:
    """Everything that decides the content: name and commit on the Hub, or the bytes of a folder wherever it is."""
    part = {"config": source.config, "split": source.split}
    if source.folder is None:
        assert source.name is not None
        return part | {"name": source.name.lower(), "revision": source.revision}
    return part | {"files": sha256_of_tree(_existing(source.folder))}


@contextmanager
def opened(source: DatasetSource) -> Iterator[Any]:
    """The split as a `datasets.Dataset`, for as long as the context lasts.

    A Hub data set stays in the cache of `datasets`. The files that `datasets` makes from a folder are deleted, because
    its cache recognises a changed file by its time alone.

    Raises:
        BadInput: The data set does not exist or cannot be read.
    """
    if source.folder is None:
        yield _split_of(source, str(source.name), None)
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield _split_of(source, str(_existing(source.folder).absolute()), scratch)


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise BadInput(f"data set folder {folder} does not exist", "correct `dataset.folder` of the text source")
    return folder


def _split_of(source: DatasetSource, path: str, cache: str | None) -> Any:
    import datasets  # slow to import, and most releases need none of it
    from huggingface_hub.utils import disable_progress_bars

    datasets.disable_progress_bars()
    disable_progress_bars()
    # The error repeats what the library logs, and goes to the person who started the release.
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    failures = (datasets.exceptions.DatasetsError, httpx2.HTTPError, yaml.YAMLError, *_FAILURES)
    try:
        builder = datasets.load_dataset_builder(path, source.config, revision=source.revision, cache_dir=cache)
        if source.revision is not None and builder.hash != source.revision:
            # Without a connection, the library takes the newest copy in its cache, whatever its commit.
            raise datasets.exceptions.DatasetNotFoundError(f"the copy in the cache is of commit {builder.hash}")
        builder.download_and_prepare()
        splits = list(builder.info.splits or ())
        if source.split not in splits:
            raise BadInput(
                f"{place_of(source)} has no such split; it has {', '.join(splits)}",
                "correct `dataset.split` of the text source",
            )
        return builder.as_dataset(split=source.split)
    except failures as error:
        generating = isinstance(error, datasets.exceptions.DatasetGenerationError)
        reason = error.__cause__ if generating and error.__cause__ else error
        if isinstance(reason, OSError) and reason.errno in FULL_OR_CLOSED:
            raise reason from None
        raise BadInput(
            f"{place_of(source)} cannot be read: {' '.join(str(reason).split()) or type(reason).__name__}",
            _remedy(source, reason, isinstance(reason, datasets.exceptions.DatasetNotFoundError)),
        ) from error


def _remedy(source: DatasetSource, error: BaseException, not_found: bool) -> str:
    if not_found:
        return (
            "correct `dataset.name` and `dataset.revision`; if the data set is gated or private, accept its terms on "
            "the Hub and set HF_TOKEN of an account that may read it"
        )
    if source.name is not None and isinstance(error, OSError | httpx2.HTTPError):
        return "check the network, HF_ENDPOINT and HF_HUB_OFFLINE, then run again"
    return "correct `dataset` of the text source; its files must be data, because a loading script is never run"
