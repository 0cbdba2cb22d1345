"""What is known about a source before it is resolved: what is on disk already, its size, access and licence."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from gguf import GGUFReader
from huggingface_hub import ModelInfo, constants, try_to_load_from_cache
from huggingface_hub.repocard import metadata_load
from huggingface_hub.utils import filter_repo_objects
from yaml import YAMLError

from taylor_ops.capture.record import CapturedRanges
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config.source import FolderSource, GgufSource, HubSource
from taylor_ops.errors import BadInput, told_as
from taylor_ops.masking import printable
from taylor_ops.model.original import Original
from taylor_ops.model.shape import ModelShape
from taylor_ops.model.weight_files import INDEX, ONE_FILE, listed_in, weight_files
from taylor_ops.source.files import WANTED
from taylor_ops.source.gguf import gguf_files, licences_beside
from taylor_ops.source.hub import fetch_file, in_the_cache, told_by_the_hub
from taylor_ops.source.record import ResolvedSource
from taylor_ops.source.resolve import brought_here, origin_of, readable, require_known
from taylor_ops.source.roles import left_files, left_of
from taylor_ops.stages import CAPTURE, RESOLVE, inputs_of_capture, inputs_of_resolve
from taylor_ops.storage.artifacts import Artifacts, ReleaseFolder
from taylor_ops.storage.files import size
from taylor_ops.storage.stage_cache import recall

_NONE_STATED = "none stated"
_GATED = "gated, open to this account"
_SAMPLE_BYTES = 64 << 20
# Each file is read once for its values and once for its hash.
_READINGS = 2


@dataclass(frozen=True)
class KnownSource:
    """A source, as far as it is known before it is resolved.

    Attributes:
        original: The original. While its weights are still on the Hub, the `ModelShape` that its config gives.
        access: Who may read the source, in words.
        licence: The licence that the source states, in words.
        read_bytes: Size of the weights as the source stores them.
        to_fetch: Bytes that are still to be fetched from the Hub.
        to_write: Bytes that resolving the source will write into the artifacts folder.
        ranges: File of the ranges that an earlier run captured from this source under this config, if there is one.
        tokens: Number of tokens over which those ranges were captured.
        left: Files of the source that go nowhere. Beside a GGUF file, all but licences. None if the Hub does not say.
        seconds: Estimated time for resolving the source, without any download.
    """

    original: ModelShape | Original
    access: str
    licence: str
    read_bytes: int
    to_fetch: int = 0
    to_write: int = 0
    ranges: Path | None = None
    tokens: int = 0
    left: tuple[str, ...] | None = ()
    seconds: float = 0.0

    @property
    def gated(self) -> bool:
        """Whether the Hub gives the source only to accounts that accepted its terms."""
        return self.access == _GATED


def known_source(config: ReleaseConfig, artifacts: Path, device: torch.device, scratch: Path) -> KnownSource:
    """Find the source of a release in the artifacts folder, if an earlier run resolved it, else in its own place.

    Only the headers of a folder or of a Hub source are read, and no weights are fetched.

    Args:
        config: The config of the release.
        artifacts: The artifacts folder.
        device: The device on which ranges are captured.
        scratch: Folder for a dequantised GGUF file, or for the config of a source on the Hub.

    Raises:
        BadInput: If the source cannot be read, or if there is no room to fetch it.
    """
    source, place = config.source, Artifacts(artifacts.absolute()).release(config.name)
    start = time.monotonic()
    resolved = _resolved_before(config, place)
    if resolved is not None:
        found = replace(_in_folder(config, resolved.folder), seconds=time.monotonic() - start)
        captured = _captured_before(config, resolved, device, place)
        return found if captured is None else replace(found, ranges=captured[0], tokens=captured[1])
    if isinstance(source, HubSource):
        cached = in_the_cache(source)
        if cached is None or not _is_complete(cached):
            return _on_the_hub(source, scratch)
    # Of all sources, only a GGUF file is written into the temporary folder.
    with told_as(scratch / "original", origin_of(source)):
        folder, _ = brought_here(source, scratch)
        dequantised = time.monotonic() - start
        found = _in_folder(config, folder)
    seconds = dequantised + _READINGS * found.read_bytes / _bytes_hashed_per_second(folder)
    return replace(found, seconds=seconds, to_write=found.read_bytes if isinstance(source, GgufSource) else 0)


def _resolved_before(config: ReleaseConfig, place: ReleaseFolder) -> ResolvedSource | None:
    memory = place.memory(RESOLVE.name)
    # Hashing a large source takes long, so hash it only if there may be something to reuse.
    if not memory.exists():
        return None
    key = RESOLVE.key(inputs_of_resolve(config, place.stages))
    found = recall(memory, key, ResolvedSource, place.stage(RESOLVE.name))
    return None if found is None or found.missing() else found


def _captured_before(
    config: ReleaseConfig, resolved: ResolvedSource, device: torch.device, place: ReleaseFolder
) -> tuple[Path, int] | None:
    key = CAPTURE.key(inputs_of_capture(config, resolved, device))
    folder = place.stage(CAPTURE.name)
    record = recall(place.memory(CAPTURE.name), key, CapturedRanges, folder)
    return None if record is None else (folder / record.file, record.tokens)


def _in_folder(config: ReleaseConfig, folder: Path) -> KnownSource:
    stated = _stated_by(config.source, folder)
    original, _ = readable(folder, config.source)
    read = sum(file.stat().st_size for file in original.checkpoint.files())
    return KnownSource(original, stated.access, stated.licence, read, left=stated.left)


def _is_complete(folder: Path) -> bool:
    try:
        return not Original(folder).unfit()
    except BadInput:
        return False


def _on_the_hub(source: HubSource, scratch: Path) -> KnownSource:
    info = told_by_the_hub(source)
    fetch_file(source, "config.json", scratch)
    with told_as(scratch, f"{source.repo_id} at {source.revision[:12]}"):
        original = ModelShape(scratch)
        require_known(original, source.recognise_architecture)
    all_sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or ()}
    sizes = {name: all_sizes[name] for name in filter_repo_objects(all_sizes, allow_patterns=WANTED)}
    with told_as(scratch, f"{source.repo_id} at {source.revision[:12]}"):
        weights = _weights_on_the_hub(source, sizes, scratch)
    cache = Path(constants.HF_HUB_CACHE)
    # Complete files in the cache are not fetched again. What is missing may be none of these files, hence at least 1.
    needed = max(1, sum(length for name, length in sizes.items() if not _is_cached(source, name)))
    free = shutil.disk_usage(next(place for place in (cache, *cache.parents) if place.is_dir())).free
    if free < needed:
        raise BadInput(
            f"fetching the source needs {size(needed)}, but the Hub cache in {cache} has only {size(free)} free",
            "free space there, or set HF_HUB_CACHE to a folder with more",
        )
    stated = _stated_by_the_hub(info, weights)
    read = sum(sizes[name] for name in weights)
    return KnownSource(original, stated.access, stated.licence, read, to_fetch=needed, left=stated.left)


def _weights_on_the_hub(source: HubSource, names: Collection[str], scratch: Path) -> list[str]:
    """The files of a repository from which transformers loads the weights. Its index, if it counts, goes to `scratch`.

    Raises `BadInput` if there are none, or if the index names a file that is not there.
    """
    if ONE_FILE in names:
        return [ONE_FILE]
    if INDEX not in names:
        raise BadInput(
            f"{source.repo_id} at {source.revision[:12]} holds no safetensors file that transformers loads: neither "
            f"{ONE_FILE} nor {INDEX}",
            "correct `source`",
        )
    fetch_file(source, INDEX, scratch)
    files = sorted(set(listed_in(scratch).values()))
    missing = next((file for file in files if file not in names), None)
    if missing is not None:
        raise BadInput(f"{scratch / INDEX} names {missing}, which the repository does not hold", "correct `source`")
    return files


def _is_cached(source: HubSource, name: str) -> bool:
    return isinstance(try_to_load_from_cache(source.repo_id, name, revision=source.revision), str)


class _Stated(NamedTuple):
    """Who may read a source, the licence that it states, and its files that a release leaves."""

    access: str
    licence: str
    left: tuple[str, ...] | None


def _stated_by(source: HubSource | FolderSource | GgufSource, folder: Path) -> _Stated:
    """What a source says of itself whose files are on this machine, as safetensors in `folder`."""
    if isinstance(source, HubSource):
        try:
            return _stated_by_the_hub(told_by_the_hub(source), weight_files(folder).holding)
        except BadInput:
            return _Stated("fetched before; the Hub does not answer now", "not known", None)
    if isinstance(source, GgufSource):
        files = gguf_files(source)
        field = GGUFReader(files[0]).get_field("general.license")
        used = {*files, *licences_beside(source)}
        beside = sorted(path for path in files[0].parent.iterdir() if path.is_file() and path not in used)
        left = tuple(path.name for path in beside if not path.name.startswith("."))
        return _Stated("local file", printable(str(field.contents())) if field else _NONE_STATED, left)
    weights = weight_files(folder).holding
    left = tuple(name for name in left_files(folder) if name not in weights)
    return _Stated("local files", _licence_of_the_card(folder), left)


def _licence_of_the_card(folder: Path) -> str:
    card = folder / "README.md"
    try:
        metadata = metadata_load(card) if card.is_file() else None
    except (ValueError, YAMLError):
        return f"not known: the metadata of {card.name} cannot be read"
    return printable(str((metadata or {}).get("license", _NONE_STATED)))


def _stated_by_the_hub(info: ModelInfo, weights: Collection[str]) -> _Stated:
    access = "private" if info.private else _GATED if info.gated else "public"
    left = [name for name in left_of(file.rfilename for file in info.siblings or ()) if name not in weights]
    return _Stated(access, printable(str((info.card_data or {}).get("license", _NONE_STATED))), tuple(left))


def _bytes_hashed_per_second(folder: Path) -> float:
    file = max((folder / name for name in weight_files(folder).holding), key=lambda path: path.stat().st_size)
    start = time.monotonic()
    with file.open("rb") as stream:
        sample = stream.read(_SAMPLE_BYTES)
        hashlib.sha256(sample).digest()
    return len(sample) / max(time.monotonic() - start, 1e-9)
