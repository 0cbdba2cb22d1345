"""The files that `card.files` adds to a bundle."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config.source import GgufSource, HubSource
from taylor_ops.errors import BadInput
from taylor_ops.source.hub import Ask, hub_refusals_explained, once
from taylor_ops.source.roles import LICENCE, copied_files, role_of

_MADE_BY_THE_RELEASE = re.compile(
    r"README\.md|\.eval_results/.*|attestations/.*|taylor_.*|(slowdown|layers|calibration|latency)\.png|.*\.sig"
)
# Readers of a bundle run no code but that of a known version of this project, and load no adapter.
_CODE = re.compile(r".*\.(py|pyc|pyd|pth|so)|(.*/)?adapter_config\.json")


def card_files(config: ReleaseConfig, folder: Path, ask: Ask = once) -> dict[str, Path]:
    """The files that `card.files` adds, by their names in the bundle: beside the GGUF file, or in the source `folder`.

    Those of a Hub source are fetched. A licence that goes along by its role is not added a second time.

    Args:
        config: The release config.
        folder: The folder of the source.
        ask: How the files of a Hub source are asked for.

    Raises:
        BadInput: A file is not there, is no file, or is one that the release makes itself.
    """
    source, names = config.source, config.card.files
    if isinstance(source, HubSource) and any(not (folder / name).is_file() for name in names):
        with hub_refusals_explained(source):
            commit, wanted = source.revision, list(names)
            ask(lambda: str(snapshot_download(source.repo_id, revision=commit, allow_patterns=wanted)))
    place = source.file.parent if isinstance(source, GgufSource) and source.package is None else folder
    remedy = "correct `card.files`; its names are relative to the folder of the source"
    for name in names:
        if _MADE_BY_THE_RELEASE.fullmatch(name) or role_of(name) not in (None, LICENCE):
            raise BadInput(f"`card.files`: {name} is a file that the release makes itself", "leave it out")
        if _CODE.fullmatch(name):
            raise BadInput(
                f"`card.files`: {name} would bring code into the bundle, which no reader runs", "leave it out"
            )
        if not (place / name).is_file():
            raise BadInput(f"`card.files`: {place / name} is not a file", remedy)
        # The files of a Hub source are links into the cache of the Hub.
        leads_out = not (place / name).resolve().is_relative_to(place.resolve())
        if leads_out and not isinstance(source, HubSource):
            raise BadInput(f"`card.files`: {place / name} leads out of the folder of the source", remedy)
    along = copied_files(folder)
    return {name: place / name for name in names if name not in along}
