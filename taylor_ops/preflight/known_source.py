"""What of a source is on this machine before it is resolved, and what is known of all of it: sizes, access, licence."""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from gguf import GGUFReader
from huggingface_hub import ModelInfo, constants, try_to_load_from_cache
from huggingface_hub.repocard import metadata_load
from yaml import YAMLError

from taylor_ops.capture.record import CapturedRanges
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config.source import GgufSource, HubSource
from taylor_ops.errors import BadInput
from taylor_ops.model.original import Original
from taylor_ops.model.shape import ModelShape
from taylor_ops.source.files import is_read
from taylor_ops.source.gguf import gguf_file
from taylor_ops.source.hub import fetch_config, in_the_cache, told_by_the_hub
from taylor_ops.source.record import ResolvedSource
from taylor_ops.source.resolve import brought_here, readable, require_known
from taylor_ops.stages import CAPTURE, RESOLVE, inputs_of_capture, inputs_of_resolve
from taylor_ops.storage.artifacts import Artifacts, ReleaseFolder
from taylor_ops.storage.files import size
from taylor_ops.storage.stage_cache import recall

_NONE_STATED = "none stated"
_SAMPLE_BYTES = 64 << 20
# Each file is read once for its values and once for its hash.
_READINGS = 2


@dataclass(frozen=True)
class KnownSource:
    """A source as far as it is on this machine.

    original: while weights are still to come from the Hub a `ModelShape`, which its config alone tells. read_bytes: of
    its weights as they lie there. to_fetch: bytes that are still to come from the Hub. to_write: bytes that resolving
    it will write into the artifacts. access, licence: in words. ranges: file of those that an earlier run has captured
    from it, under this config, over `tokens` tokens. seconds: estimate for resolving it, without any download.
    """

    original: ModelShape | Original
    access: str
    licence: str
    read_bytes: int
    to_fetch: int = 0
    to_write: int = 0
    ranges: Path | None = None
    tokens: int = 0
    seconds: float = 0.0


def known_source(config: ReleaseConfig, artifacts: Path, device: torch.device, scratch: Path) -> KnownSource:
    """Find the source of a release, from what an earlier run in `artifacts` left, or in its own place.

    Of a folder and of a Hub source the headers are read; no weight is fetched. A GGUF file is dequantised into
    `scratch`. Raises `BadInput` for a source that cannot be read or has no room.
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
        if cached is None or not _whole(cached):
            return _on_the_hub(source, scratch)
    folder = brought_here(source, scratch)
    dequantised = time.monotonic() - start
    found = _in_folder(config, folder)
    seconds = dequantised + _READINGS * found.read_bytes / _bytes_hashed_per_second(folder)
    return replace(found, seconds=seconds, to_write=found.read_bytes if isinstance(source, GgufSource) else 0)


def _resolved_before(config: ReleaseConfig, place: ReleaseFolder) -> ResolvedSource | None:
    memory = place.memory(RESOLVE.name)
    # The hashes of a large source take long: only where there may be something to reuse.
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
    access, licence = _access_and_licence(config, folder)
    read = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return KnownSource(readable(folder, config.source), access, licence, read)


def _whole(folder: Path) -> bool:
    try:
        return not Original(folder).unfit()
    except BadInput:
        return False


def _on_the_hub(source: HubSource, scratch: Path) -> KnownSource:
    info = told_by_the_hub(source)
    fetch_config(source, scratch)
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or () if is_read(file.rfilename)}
    weights = {name: size for name, size in sizes.items() if name.endswith(".safetensors")}
    if not weights:
        raise BadInput(f"{source.repo_id} at {source.revision[:12]} holds no safetensors file", "correct `source`")
    cache = Path(constants.HF_HUB_CACHE)
    # Files that an earlier fetch left whole are not fetched again; what is missing may be no file of these.
    needed = max(1, sum(length for name, length in sizes.items() if not _is_cached(source, name)))
    free = shutil.disk_usage(next(place for place in (cache, *cache.parents) if place.is_dir())).free
    if free < needed:
        raise BadInput(
            f"fetching the source needs {size(needed)}, the cache of the Hub in {cache} has {size(free)} free",
            "free space there, or set HF_HUB_CACHE to a folder with more",
        )
    original = ModelShape(scratch)
    require_known(original, source.recognise_architecture)
    return KnownSource(original, *_told(info), sum(weights.values()), to_fetch=needed)


def _is_cached(source: HubSource, name: str) -> bool:
    return isinstance(try_to_load_from_cache(source.repo_id, name, revision=source.revision), str)


def _access_and_licence(config: ReleaseConfig, folder: Path) -> tuple[str, str]:
    """Who may read a source that is here, and the licence that it states."""
    source = config.source
    if isinstance(source, HubSource):
        try:
            return _told(told_by_the_hub(source))
        except BadInput:
            return "fetched before; the Hub does not answer for it now", "not known"
    if isinstance(source, GgufSource):
        field = GGUFReader(gguf_file(source)).get_field("general.license")
        return "local file", str(field.contents()) if field else _NONE_STATED
    card = folder / "README.md"
    try:
        metadata = metadata_load(card) if card.is_file() else None
    except (ValueError, YAMLError):
        return "local files", f"not known: the metadata of {card.name} cannot be read"
    return "local files", str((metadata or {}).get("license", _NONE_STATED))


def _told(info: ModelInfo) -> tuple[str, str]:
    access = "private" if info.private else "gated, open to this account" if info.gated else "public"
    return access, str((info.card_data or {}).get("license", _NONE_STATED))


def _bytes_hashed_per_second(folder: Path) -> float:
    file = max(folder.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    start = time.monotonic()
    with file.open("rb") as stream:
        held = stream.read(_SAMPLE_BYTES)
        hashlib.sha256(held).digest()
    return len(held) / max(time.monotonic() - start, 1e-9)
