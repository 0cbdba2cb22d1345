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
from taylor_ops.source.files import WANTED, files_read
from taylor_ops.source.gguf import dequantise, gguf_files, licences_beside
from taylor_ops.source.hub import Ask, hub_refusals_explained, once
from taylor_ops.source.record import ResolvedSource
from taylor_ops.source.refused import require_no_code, require_only_files
from taylor_ops.source.unused import require_used
from taylor_ops.source.usable import require_usable
from taylor_ops.storage.files import sha256_of


def resolve(
    source: HubSource | FolderSource | GgufSource, folder: Path, progress: Progress, ask: Ask = once
) -> ResolvedSource:
    """Bring the source to a local folder and check it: known architecture, no tensor missing, every value finite.

    A Hub source stays in the Hub cache, and a local folder stays where it is.

    Args:
        source: The section `source` of the config.
        folder: Folder into which a GGUF file is dequantised.
        progress: Receives the values that were dequantised and those that were checked, and the number of all.
        ask: How the files of a Hub source are asked for.

    Raises:
        BadInput: With the tensor, file or setting to look at.
    """
    dequantised = isinstance(source, GgufSource)
    place, left_out = brought_here(source, folder, lambda done, total: progress(done, 2 * total), ask)
    original, also_left_out = readable(place, source)
    named = source.file if isinstance(source, GgufSource) else place
    parameters = _finite_values(original, named, progress, dequantised)
    return ResolvedSource(
        folder=place.absolute(),
        origin=origin_of(source),
        model_type=str(original.config.model_type),
        sha256={name: sha256_of(place / name) for name in files_read(place)},
        parameters=parameters,
        left_out=left_out + also_left_out,
    )


def brought_here(
    source: HubSource | FolderSource | GgufSource, folder: Path, progress: Progress = silent, ask: Ask = once
) -> tuple[Path, tuple[str, ...]]:
    """The local folder of a source. A Hub source is fetched, a GGUF file dequantised into `folder`.

    Checks nothing, except that a GGUF file is whole, because its tensors would be initialised at random otherwise.

    Args:
        source: The section `source` of the config.
        folder: Folder into which a GGUF file is dequantised.
        progress: Receives the dequantised values of a GGUF file and the number of all.
        ask: How the files of a Hub source are asked for.

    Returns:
        The folder, and the tensors of a GGUF file that are left out because of `source.ignore`.
    """
    match source:
        case HubSource():
            with hub_refusals_explained(source):
                commit = source.revision
                fetched = ask(lambda: str(snapshot_download(source.repo_id, revision=commit, allow_patterns=WANTED)))
                return Path(fetched), ()
        case FolderSource():
            if not source.path.is_dir():
                raise BadInput(f"source folder {source.path} does not exist", "correct `source.path`")
            return source.path, ()
        case GgufSource():
            place = folder / "original"
            return place, dequantise(gguf_files(source), place, progress, source.ignore, licences_beside(source))


def origin_of(source: HubSource | FolderSource | GgufSource) -> str:
    """Where a source comes from, in words that hold on any machine."""
    match source:
        case HubSource():
            return f"https://huggingface.co/{source.repo_id} at {source.revision}"
        case FolderSource():
            return f"local folder {source.path.name}"
        case GgufSource():
            return f"GGUF file {source.file.name}"


def readable(place: Path, source: HubSource | FolderSource | GgufSource) -> tuple[Original, tuple[str, ...]]:
    """The original in a folder, checked: architecture, tensors, their shapes and types, tokenizer.

    Only the headers of its files are read, and both tensors of a pair that the config ties.

    Returns:
        The original, and its tensors that are left out because of `source.ignore`.

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
    for first, second in original.doubled():
        raise BadInput(
            f"{place}: tensors {first} and {second} are both the same tensor of the model", "leave out one of them"
        )
    for first, second in original.apart():
        raise BadInput(
            f"{place}: experts {first} and {second} have different prefixes, "
            "and transformers would stack them in another order",
            "name all experts with the prefix of the base model, or none",
        )
    for name in original.of_another_type():
        raise BadInput(
            f"{place}: tensor {name} does not hold floating-point numbers of 16, 32 or 64 bits, which its model takes",
            "the checkpoint is quantised: release the unquantised one, or a GGUF file",
        )
    # What a GGUF file holds was compared before it was dequantised.
    ignore = () if isinstance(source, GgufSource) else source.ignore
    left_out = require_used(place, original.unused(), ignore)
    for copy, name in original.unequal_copies():
        raise BadInput(
            f"{place}: config.json ties tensor {copy} to {name}, but both are stored and differ",
            "transformers keeps both: say so with `tie_word_embeddings: false` in config.json",
        )
    require_usable(place, original.config)
    return original, left_out


def stamp(source: HubSource | FolderSource | GgufSource) -> dict[str, str]:
    """The hashes of the files of a local source, which change with it. Empty for a Hub commit, which never changes."""
    match source:
        case HubSource():
            return {}
        case FolderSource():
            names = files_read(source.path) if source.path.is_dir() else []
            return {name: sha256_of(source.path / name) for name in names}
        case GgufSource():
            return {file.name: sha256_of(file) for file in (*gguf_files(source), *licences_beside(source))}


def _finite_values(original: Original, named: Path, progress: Progress, dequantised: bool) -> int:
    """Number of values that a checkpoint stores. Reads all of them, and raises `BadInput` if one is not finite."""
    parameters = 0
    names = original.checkpoint.names()
    total = sum(math.prod(original.checkpoint.shape(name)) for name in names)
    before = total if dequantised else 0
    for name in names:
        tensor = original.checkpoint.tensor(name)
        parameters += tensor.numel()
        if original.checkpoint.dtype(name) is not None and not bool(tensor.isfinite().all()):
            raise BadInput(f"{named}: tensor {name} holds NaN or infinite values", "repair or fetch the checkpoint")
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
