"""Capture the range of every MLP pre-activation over the calibration text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from taylor_ops.architectures import Architecture, architecture_of
from taylor_ops.checkpoint import save_tensors
from taylor_ops.config import Calibration
from taylor_ops.errors import WorkFailed
from taylor_ops.files import folder_that_appears_whole, sha256_of
from taylor_ops.models import load_original, load_tokenizer
from taylor_ops.records import Record
from taylor_ops.texts import sequences

Progress = Callable[[int, int], None]


class CapturedRanges(Record):
    """The captured ranges of a model. file: name of a safetensors file with `<mlp path>.low|.high|.factor` [F]."""

    file: str
    sha256: str
    layers: int
    neurons: int
    tokens: int


@dataclass(frozen=True)
class LayerRange:
    """Ranges of one MLP, each [F] float64: least and largest pre-activation z, largest |u| of the gate factor."""

    low: Tensor
    high: Tensor
    factor: Tensor


def capture(
    original: Path, dtype: str, calibration: Calibration, device: torch.device, folder: Path, progress: Progress
) -> CapturedRanges:
    """Run the calibration text through the original and write the range of each pre-activation into `folder`."""
    model = load_original(original, dtype, device)
    tokenizer = load_tokenizer(original)
    texts = sequences(calibration.texts, tokenizer, calibration.tokens, calibration.sequence_tokens)
    texts = sorted(texts, key=len, reverse=True)
    architecture = architecture_of(model.config)
    paths = architecture.mlp_paths(model.config)
    with observed(model, architecture, paths) as ranges, torch.inference_mode():
        for start in range(0, len(texts), calibration.batch_size):
            batch = texts[start : start + calibration.batch_size]
            # Sequences of one length a call: padding would show the model tokens that nobody wrote.
            for length in sorted({len(text) for text in batch}, reverse=True):
                ids = torch.tensor([text for text in batch if len(text) == length], device=device)
                model.base_model(input_ids=ids, use_cache=False)
            progress(min(start + len(batch), len(texts)), len(texts))
    tensors = {f"{path}.{key}": value for path in paths for key, value in ranges[path].items()}
    broken = sorted(name for name, value in tensors.items() if not bool(value.isfinite().all()))
    if broken:
        raise WorkFailed(
            f"the original computes NaN or infinite values at {broken[0]} on the calibration text",
            f"set `conversion.dtype` to one that this model can compute in ({dtype} it cannot)",
        )
    with folder_that_appears_whole(folder) as partial:
        save_tensors(tensors, partial / "ranges.safetensors")
    return CapturedRanges(
        file="ranges.safetensors",
        sha256=sha256_of(folder / "ranges.safetensors"),
        layers=len(paths),
        neurons=sum(ranges[path]["low"].numel() for path in paths),
        tokens=sum(map(len, texts)),
    )


@contextmanager
def observed(model: Any, architecture: Architecture, paths: list[str]) -> Iterator[dict[str, dict[str, Tensor]]]:
    """While open, every forward pass widens the ranges `low`, `high`, `factor` ([F] float32, CPU) of each MLP."""
    ranges: dict[str, dict[str, Tensor]] = {path: {} for path in paths}

    def widen(path: str, key: str, seen: Tensor, keep: Callable[[Tensor, Tensor], Tensor]) -> None:
        seen = seen.float().cpu()
        held = ranges[path].get(key)
        ranges[path][key] = seen if held is None else keep(held, seen)

    def on_gate(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            flat = output.reshape(-1, output.shape[-1])
            widen(path, "low", flat.amin(0), torch.minimum)
            widen(path, "high", flat.amax(0), torch.maximum)
            if architecture.up is None:
                ranges[path]["factor"] = torch.ones(flat.shape[-1])

        return hook

    def on_up(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            widen(path, "factor", output.reshape(-1, output.shape[-1]).abs().amax(0), torch.maximum)

        return hook

    handles = []
    for path in paths:
        mlp = model.get_submodule(path)
        handles.append(getattr(mlp, architecture.gate).register_forward_hook(on_gate(path)))
        if architecture.up is not None:
            handles.append(getattr(mlp, architecture.up).register_forward_hook(on_up(path)))
    try:
        yield ranges
    finally:
        for handle in handles:
            handle.remove()


def read_ranges(file: Path) -> dict[str, LayerRange]:
    """The captured ranges by MLP path, in the order of the layers."""
    tensors = load_file(file)
    paths = sorted({name.rpartition(".")[0] for name in tensors}, key=_layer_number)
    return {
        path: LayerRange(*(tensors[f"{path}.{key}"].double() for key in ("low", "high", "factor"))) for path in paths
    }


def _layer_number(path: str) -> tuple[int, ...]:
    return tuple(int(part) for part in path.split(".") if part.isdigit())
