"""Capture the range of every MLP pre-activation over the calibration text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from taylor_ops.architectures import Mlp
from taylor_ops.checkpoint import save_tensors
from taylor_ops.config import Calibration
from taylor_ops.errors import WorkFailed
from taylor_ops.files import folder_that_appears_whole, sha256_of
from taylor_ops.models import load_original, load_tokenizer
from taylor_ops.original import Original
from taylor_ops.records import Record
from taylor_ops.texts import sequences

Progress = Callable[[int, int], None]

_SHOWN_TO_ALL = 16


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
    mlps = Original(original).mlps
    with observed(model, mlps) as ranges, torch.inference_mode():
        for start in range(0, len(texts), calibration.batch_size):
            batch = texts[start : start + calibration.batch_size]
            # Sequences of one length a call: padding would show the model tokens that nobody wrote.
            for length in sorted({len(text) for text in batch}, reverse=True):
                ids = torch.tensor([text for text in batch if len(text) == length], device=device)
                model.base_model(input_ids=ids, use_cache=False)
            progress(min(start + len(batch), len(texts)), len(texts))
    tensors = {f"{path}.{key}": value for path, kept in ranges.items() for key, value in kept.items()}
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
        layers=len(ranges),
        neurons=sum(kept["low"].numel() for kept in ranges.values()),
        tokens=sum(map(len, texts)),
    )


@contextmanager
def observed(model: Any, mlps: Sequence[Mlp]) -> Iterator[dict[str, dict[str, Tensor]]]:
    """While open, every forward pass widens the ranges `low`, `high`, `factor` ([F] float32, CPU) of each MLP.

    Every expert of a mixture sees the tokens that are routed to it and, because some are rarely chosen, one token in
    16 of all.
    """
    ranges: dict[str, dict[str, Tensor]] = {mlp.path: {} for mlp in mlps}

    def widen(path: str, key: str, seen: Tensor, keep: Callable[[Tensor, Tensor], Tensor]) -> None:
        seen = seen.float().cpu()
        held = ranges[path].get(key)
        ranges[path][key] = seen if held is None else keep(held, seen)

    def on_gate(path: str, z: Tensor) -> None:
        flat = z.reshape(-1, z.shape[-1])
        widen(path, "low", flat.amin(0), torch.minimum)
        widen(path, "high", flat.amax(0), torch.maximum)

    def on_up(path: str, u: Tensor) -> None:
        widen(path, "factor", u.reshape(-1, u.shape[-1]).abs().amax(0), torch.maximum)

    def on_both(path: str, both: Tensor) -> None:
        z, u = both.chunk(2, dim=-1)
        on_gate(path, z)
        on_up(path, u)

    def on_plain(path: str, z: Tensor) -> None:
        on_gate(path, z)
        ranges[path]["factor"] = torch.ones(z.shape[-1])

    def on_experts(experts: list[Mlp]) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            tokens, chosen = inputs[0], inputs[1]
            sample = torch.arange(len(tokens), device=tokens.device) % _SHOWN_TO_ALL == 0
            for mlp in experts:
                routed = (chosen == mlp.expert).any(-1) | sample
                weight = getattr(module, mlp.kind.gate)[mlp.expert]
                on_both(mlp.path, nn.functional.linear(tokens[routed], weight))

        return hook

    def layer_hook(see: Callable[[str, Tensor], None], path: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: see(path, output)

    handles = []
    mixtures: dict[str, list[Mlp]] = {}
    for mlp in mlps:
        if mlp.expert is not None:
            mixtures.setdefault(mlp.module, []).append(mlp)
            continue
        module, kind = model.get_submodule(mlp.module), mlp.kind
        first = on_plain if kind.up is None else on_both if kind.up == kind.gate else on_gate
        handles.append(getattr(module, kind.gate).register_forward_hook(layer_hook(first, mlp.path)))
        if kind.up is not None and kind.up != kind.gate:
            handles.append(getattr(module, kind.up).register_forward_hook(layer_hook(on_up, mlp.path)))
    for path, experts in mixtures.items():
        handles.append(model.get_submodule(path).register_forward_pre_hook(on_experts(experts)))
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
