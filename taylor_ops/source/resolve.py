"""Resolve a source, which is a Hub commit, a local folder or a GGUF file, to a checked folder of safetensors."""

from __future__ import annotations

import math
from pathlib import Path

from huggingface_hub import snapshot_download

from taylor_ops.config.source import FolderSource, GgufSource, HubSource
from taylor_ops.errors import BadInput
from taylor_ops.model.architectures import ARCHITECTURES
from taylor_ops.model.original import Original
from taylor_ops.model.shape import ModelShape
from taylor_ops.progress import Progress, silent
from taylor_ops.source.files import WANTED, is_read
from taylor_ops.source.gguf import dequantise, gguf_file
from taylor_ops.source.hub import hub_refusals_explained
from taylor_ops.source.record import ResolvedSource
from taylor_ops.source.refused import require_no_code, require_only_files
from taylor_ops.source.roles import copied_files
from taylor_ops.source.usable import require_usable
from taylor_ops.storage.files import sha256_of


def resolve(source: HubSource | FolderSource | GgufSource, folder: Path, progress: Progress) -> ResolvedSource:
    """Bring the source to a local folder and check it: known architecture, no tensor missing, every value finite.

    A Hub source stays in the Hub cache, and a local folder stays where it is.

    Args:
        source: The section `source` of the config.
        folder: Folder into which a GGUF file is dequantised.
        progress: Receives the values that were dequantised and those that were checked, and the number of all.

    Raises:
        BadInput: With the tensor, file or setting to look at.
    """
    dequantised = isinstance(source, GgufSource)
    place = brought_here(source, folder, lambda done, total: progress(done, 2 * total))
    original = readable(place, source)
    parameters = _finite_values(original, progress, dequantised)
    return ResolvedSource(
        folder=place.absolute(),
        origin=origin_of(source),
        model_type=str(original.config.model_type),
        sha256={name: sha256_of(place / name) for name in _files_read(place)},
        parameters=parameters,
    )


def brought_here(source: HubSource | FolderSource | GgufSource, folder: Path, progress: Progress = silent) -> Path:
    """The local folder of a source. A Hub source is fetched, a GGUF file dequantised into `folder`. Checks nothing.

    `progress` receives the dequantised values of a GGUF file and the number of all.
    """
    match source:
        case HubSource():
            with hub_refusals_explained(source):
                return Path(snapshot_download(source.repo_id, revision=source.revision, allow_patterns=WANTED))
        case FolderSource():
            if not source.path.is_dir():
                raise BadInput(f"source folder {source.path} does not exist", "correct `source.path`")
            return source.path
        case GgufSource():
            dequantise(gguf_file(source), folder / "original", progress)
            return folder / "original"


def origin_of(source: HubSource | FolderSource | GgufSource) -> str:
    """Where a source comes from, in words that hold on any machine."""
    match source:
        case HubSource():
            return f"https://huggingface.co/{source.repo_id} at {source.revision}"
        case FolderSource():
            return f"local folder {source.path.name}"
        case GgufSource():
            return f"GGUF file {source.file.name}"


def readable(place: Path, source: HubSource | FolderSource | GgufSource) -> Original:
    """The original in a folder, checked by the headers of its files: architecture, tensors and their shapes, tokenizer.

    Raises:
        BadInput: With the tensor, file or setting to look at.
    """
    require_only_files(place)
    require_no_code(place)
    original = Original(place)
    require_known(original, source.recognise_architecture)
    for name, (shape, stored_shape) in original.unfit().items():
        if stored_shape is None:
            raise BadInput(f"{place}: tensor {name} is missing", "the checkpoint is incomplete; fetch it again")
        raise BadInput(
            f"{place}: tensor {name} has shape {stored_shape}, its config asks for {shape}",
            "the checkpoint and its config.json do not belong together",
        )
    require_usable(place, original.config)
    return original


def stamp(source: HubSource | FolderSource | GgufSource) -> dict[str, str]:
    """The hashes of the files of a local source, which change with it. Empty for a Hub commit, which never changes."""
    match source:
        case HubSource():
            return {}
        case FolderSource():
            names = _files_read(source.path) if source.path.is_dir() else []
            return {name: sha256_of(source.path / name) for name in names}
        case GgufSource():
            return {"gguf": sha256_of(gguf_file(source))}


def _files_read(place: Path) -> list[str]:
    beside = [path.name for path in place.iterdir() if path.is_file() and is_read(path.name)]
    return sorted({*beside, *copied_files(place)})


def _finite_values(original: Original, progress: Progress, dequantised: bool) -> int:
    """Number of values that a checkpoint stores. Reads all of them, and raises `BadInput` if one is not finite."""
    parameters = 0
    names = original.checkpoint.names()
    total = sum(math.prod(original.checkpoint.shape(name)) for name in names)
    before = total if dequantised else 0
    for name in names:
        tensor = original.checkpoint.tensor(name)
        parameters += tensor.numel()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise BadInput(
                f"{original.folder}: tensor {name} holds NaN or infinite values", "repair or fetch the checkpoint"
            )
        progress(before + parameters, before + total)
    return parameters


def require_known(original: ModelShape, recognise: bool) -> None:
    """Raise `BadInput` if the architecture has no entry, unless the config accepts one that is only recognised."""
    model_type = original.architecture.model_type
    if model_type in ARCHITECTURES or recognise:
        return
    places = ", ".join(f"`{kind.path}`" for kind in original.architecture.mlps)
    raise BadInput(
        f"architecture `{model_type}` is not known, but its MLPs at {places} look like those of a known one; "
        f"known are {', '.join(sorted(ARCHITECTURES))}",
        "set `source.recognise_architecture: true` to release it all the same; the gates prove whether that was right",
    )
