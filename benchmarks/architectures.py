"""Release a tiny random model of every architecture in both bases and compare it with its original.

    python -m benchmarks.architectures

The models are random, so that every family fits. The result shows that all neurons are converted, and that the bundle
generates the same tokens as the original. It takes about two minutes on two cores.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.command import typed
from benchmarks.measurement import write_result
from taylor_ops.capture.capture import capture
from taylor_ops.config.conversion import Basis, Conversion
from taylor_ops.config.texts import Calibration, TextSource
from taylor_ops.conversion.convert import convert
from taylor_ops.conversion.terms import Subject
from taylor_ops.errors import BadInput
from taylor_ops.exactness.layers import layer_errors
from taylor_ops.model.architectures import ARCHITECTURES
from taylor_ops.model.loading import load_bundle, load_original, load_tokenizer
from taylor_ops.model.original import Original
from taylor_ops.series.ranges import read_ranges
from taylor_ops.texts.prompts import prompts
from tests.support.tiny_models import save_tiny_model

RESULT = Path(__file__).parent / "results" / "architectures.json"
CPU = torch.device("cpu")
NEW_TOKENS = 32
LENGTH = 96
TOLERANCES: dict[Basis, float] = {"chebyshev": 1e-4, "taylor": 1e-1}


def main() -> None:
    """Release every architecture in both bases and write the result."""
    torch.set_num_threads(1)
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        for model_type in sorted(ARCHITECTURES):
            rows[model_type] = _row(Path(scratch) / model_type, model_type)
            print(_line(model_type, rows[model_type]), flush=True)
    result = {
        "command": typed("architectures"),
        "new_tokens": NEW_TOKENS,
        "tolerances": TOLERANCES,
        "architectures": rows,
    }
    write_result(RESULT, "architectures", result)


def _row(folder: Path, model_type: str) -> dict[str, Any]:
    source = save_tiny_model(folder / "original", model_type)
    calibration = Calibration(tokens=4096, sequence_tokens=128)
    ranges = folder / "ranges" / capture(source, "float32", calibration, CPU, folder / "ranges", _silent).file
    return {basis: _in_basis(folder, source, ranges, basis) for basis in TOLERANCES}


def _in_basis(folder: Path, source: Path, ranges: Path, basis: Basis) -> dict[str, Any]:
    original = Original(source)
    subject = Subject(original, ranges, Conversion(basis=basis, tolerance=TOLERANCES[basis]))
    try:
        plan = subject.expansions().ladder()[0]
    except BadInput as error:
        return {"refused": error.cause}
    record = convert(subject, plan, folder / basis, _silent)
    exact, found = load_original(source, "float32", CPU), load_bundle(folder / basis, CPU)
    held_out = _held_out(source)
    with torch.inference_mode():
        difference = (found(held_out).logits.log_softmax(-1) - exact(held_out).logits.log_softmax(-1)).abs()
    mlps, captured = original.mlps, read_ranges(ranges)
    errors = layer_errors(exact, found, mlps, captured, subject.conversion.range_margin, held_out.tolist())
    equal = (_greedy(found, held_out) == _greedy(exact, held_out)).all(dim=1)
    return {
        "neurons_protected": record.neurons_protected,
        "neurons_total": record.neurons_total,
        "mean_order": plan.mean_order,
        "bound": max(layer.bound for layer in record.layers),
        "error": max(error.inside or 0.0 for error in errors),
        "log_prob_difference_max": float(difference.max()),
        "prompts": len(held_out),
        "prompts_equal": int(equal.sum()),
    }


def _held_out(source: Path) -> torch.Tensor:
    """The first tokens of 32 of the project's held-out prompts."""
    texts = prompts(TextSource(name="project", builtin="held_out"), load_tokenizer(source))
    return torch.tensor([text.tokens[:LENGTH] for text in texts if len(text.tokens) >= LENGTH][:32])


def _greedy(model: Any, ids: torch.Tensor) -> torch.Tensor:
    said: torch.Tensor = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        min_new_tokens=NEW_TOKENS,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        pad_token_id=258,
    )
    return said[:, ids.shape[1] :]


def _line(model_type: str, row: dict[str, Any]) -> str:
    cells = [model_type]
    for result in row.values():
        if "refused" in result:
            cells += ["refused", "", "", ""]
        else:
            cells += [
                f"{result['neurons_protected']} of {result['neurons_total']}",
                f"{result['error']:.1e} of {result['bound']:.1e}",
                f"{result['log_prob_difference_max']:.1e}",
                f"{result['prompts_equal']} of {result['prompts']}",
            ]
    return "| " + " | ".join(cells) + " |"


def _silent(_done: int, _total: int) -> None:
    """Ignore progress."""


if __name__ == "__main__":
    main()
