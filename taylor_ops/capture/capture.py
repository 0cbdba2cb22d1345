"""Capture the range of every MLP pre-activation over the calibration text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taylor_ops.capture.layerwise import Layerwise
from taylor_ops.capture.record import CapturedRanges
from taylor_ops.capture.resumable import Unfinished
from taylor_ops.config.texts import Calibration
from taylor_ops.errors import WorkFailed
from taylor_ops.machine.device_errors import device_errors_explained
from taylor_ops.machine.devices import DTYPES
from taylor_ops.model.architectures import Mlp
from taylor_ops.model.loading import load_tokenizer
from taylor_ops.model.mlp_hooks import Role, watched
from taylor_ops.model.original import Original
from taylor_ops.model.shape import ModelShape, require_positions
from taylor_ops.model.shards import save_tensors
from taylor_ops.progress import Progress
from taylor_ops.series.bound import OutputWeights
from taylor_ops.series.ranges import KEYS
from taylor_ops.storage.files import (
    disk_errors_explained,
    folder_that_appears_whole,
    require_free,
    scratch_beside,
    sha256_of,
)
from taylor_ops.texts.prompts import sequences

_LESS_AT_ONCE = "lower `calibration.batch_size` or `calibration.sequence_tokens`"
_SHOWN_TO_ALL = 16


def capture(
    original: Path,
    dtype: str,
    calibration: Calibration,
    device: torch.device,
    folder: Path,
    progress: Progress,
    kept: Path | None = None,
    layers: int | None = None,
) -> CapturedRanges:
    """Run the calibration text through the original and write the range of each pre-activation into `folder`.

    One decoder layer at a time is in memory.

    Args:
        original: Folder of the original.
        dtype: Name of the dtype in which the original computes.
        calibration: The calibration text, and how much of it runs at once.
        device: Where the layers run.
        folder: Receives `ranges.safetensors` once it is complete.
        progress: Receives the finished batches and their total, over all layers.
        kept: Folder that keeps finished layers, so that a run after a kill resumes at the next layer. The caller makes
            sure that it belongs to these inputs alone.
        layers: How many layers to capture, from the first on. All of them by default.

    Raises:
        BadInput: The sequences are too long for the model.
        WorkFailed: The device fails, there is not enough memory or disk space, or a captured value is not finite.
    """
    source, tokenizer = Original(original), load_tokenizer(original)
    require_positions(source, "`calibration.sequence_tokens`", calibration.sequence_tokens)
    if layers is not None:
        source = source.first_layers(layers)
    texts = sequences(calibration.texts, tokenizer, calibration.tokens, calibration.sequence_tokens)
    needed = states_bytes(source, sum(map(len, texts)), dtype)
    with ExitStack() as stack:
        work = kept or Path(stack.enter_context(scratch_beside(folder)))
        stack.enter_context(disk_errors_explained(work, needed))
        unfinished = Unfinished(work, device)
        require_free(work, needed - unfinished.bytes)
        with device_errors_explained(device, "capture", _LESS_AT_ONCE):
            tensors = _captured(source, dtype, batches_of(texts, calibration.batch_size), device, unfinished, progress)
        with folder_that_appears_whole(folder) as partial:
            save_tensors(tensors, partial / "ranges.safetensors")
    low = [value for name, value in tensors.items() if name.endswith(".low")]
    return CapturedRanges(
        file="ranges.safetensors",
        sha256=sha256_of(folder / "ranges.safetensors"),
        layers=len(low),
        neurons=sum(value.numel() for value in low),
        tokens=sum(map(len, texts)),
    )


def states_bytes(source: ModelShape, tokens: int, dtype: str) -> int:
    """Bytes that a capture keeps on disk at once: the hidden states of its tokens before one layer and the next."""
    return 2 * tokens * int(source.config.hidden_size) * DTYPES[dtype].itemsize


@torch.inference_mode()
def _captured(
    source: Original,
    dtype: str,
    batches: Sequence[Tensor],
    device: torch.device,
    unfinished: Unfinished,
    progress: Progress,
) -> dict[str, Tensor]:
    """Run batches of ids [B, T] through the layers in turn; returns the tensors of the ranges file by name."""
    run = Layerwise(source, DTYPES[dtype], device)
    for number, state in enumerate(run.enter(batches, unfinished.folder)):
        if unfinished.layers == 0:
            unfinished.write(0, number, state)
    for layer in range(unfinished.layers, run.layers):
        with run.layer(layer) as mlps, observed(run.model, mlps) as ranges:
            for number in range(len(batches)):
                state = run.run(layer, number, unfinished.read(layer, number))
                if layer + 1 < run.layers:
                    unfinished.write(layer + 1, number, state)
                progress(layer * len(batches) + number + 1, run.layers * len(batches))
        unfinished.finish(layer, kept_of(source, mlps, ranges, dtype))
    return unfinished.found()


def batches_of(texts: Sequence[Sequence[int]], size: int) -> list[Tensor]:
    """Ids [B, T] of at most `size` texts of one length each.

    No text is padded: padding would show the model tokens that nobody wrote.
    """
    longest_first = sorted(texts, key=len, reverse=True)
    return [
        torch.tensor([text for text in batch if len(text) == length])
        for start in range(0, len(longest_first), size)
        for batch in [longest_first[start : start + size]]
        for length in sorted({len(text) for text in batch}, reverse=True)
    ]


def kept_of(
    source: Original, mlps: Sequence[Mlp], ranges: Mapping[str, dict[str, Tensor]], dtype: str
) -> dict[str, Tensor]:
    """The tensors of observed MLPs by their name in the ranges file, on the CPU.

    Raises `WorkFailed` if a value is not finite.
    """
    tensors: dict[str, Tensor] = {}
    for mlp in mlps:
        seen = ranges[mlp.path]
        down = source.weights(mlp).down.to(seen["low"].device, DTYPES[dtype])
        values = seen | {"output_norm": _typical(seen["norms"])} | _measures(down)
        tensors |= {f"{mlp.path}.{key}": values[key].cpu() for key in KEYS}
    broken = sorted(name for name, value in tensors.items() if not bool(value.isfinite().all()))
    if broken:
        raise WorkFailed(
            f"the original computes NaN or infinite values at {broken[0]} on the calibration text",
            f"set `conversion.dtype` to a dtype in which this model computes finite values ({dtype} is none)",
        )
    return tensors


@contextmanager
def observed(model: Any, mlps: Sequence[Mlp]) -> Iterator[dict[str, dict[str, Tensor]]]:
    """While open, every forward pass widens the ranges `low`, `high` and `factor` ([F] float32) of each MLP.

    `norms` [T] collects the L2 norm of the output of the MLP at every token.
    """
    ranges: dict[str, dict[str, Tensor]] = {mlp.path: {} for mlp in mlps}

    def widen(path: str, key: str, seen: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> None:
        seen = seen.float()
        before = ranges[path].get(key)
        ranges[path][key] = seen if before is None else combine(before, seen)

    def see(path: str, role: Role, values: Tensor) -> None:
        if role == "pre_activation":
            widen(path, "low", values.amin(0), torch.minimum)
            widen(path, "high", values.amax(0), torch.maximum)
        elif role == "factor":
            # `values.abs()` would be another copy of all values.
            widen(path, "factor", torch.maximum(values.amax(0), -values.amin(0)), torch.maximum)
        elif role == "output":
            norms = torch.linalg.vector_norm(values.float(), dim=-1)
            widen(path, "norms", norms, lambda before, seen: torch.cat([before, seen]))

    with watched(model, mlps, see, shown_to_all=_SHOWN_TO_ALL):
        yield ranges
    for mlp in mlps:
        if mlp.kind.up is None and "low" in ranges[mlp.path]:
            ranges[mlp.path]["factor"] = torch.ones_like(ranges[mlp.path]["low"])


def _typical(norms: Tensor) -> Tensor:
    """The median [1] of norms [T]: a mean would follow the few tokens whose outputs are a thousand times as large.

    If the median is 0, norms of 0 are left out. If all norms are 0, the result is 1.
    """
    median = norms.median()
    if median == 0 and bool((norms > 0).any()):
        median = norms[norms > 0].median()
    return torch.where(median == 0, 1.0, median)[None]


def _measures(weight: Tensor) -> dict[str, Tensor]:
    """The measures of output weights [H, F] as tensors."""
    measured = OutputWeights.of(weight)
    numbers = {"rows": measured.rows, "alignment": measured.alignment}
    return {"norms": measured.norms, "peaks": measured.peaks} | {
        name: torch.tensor([number], dtype=torch.float64) for name, number in numbers.items()
    }
