"""Measure how fast ranges are captured, against a plain forward pass of transformers over the same text.

    python -m benchmarks.capture

SmolLM2-135M-Instruct reads the default calibration text in float32. The plain pass runs the decoder alone, without the
head that makes logits, over the same batches and with the model loaded already. The time to load it is reported too,
because the capture also reads the weights. Both take turns, and which comes first alternates. It takes about twenty
minutes on two cores, and 2 GB. With `--tokens` or `--rounds` nothing is written.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.command import typed
from benchmarks.measurement import write_result
from benchmarks.rounding import SOURCE
from taylor_ops.capture.capture import batches_of, capture
from taylor_ops.config.texts import Calibration
from taylor_ops.machine.devices import device_description
from taylor_ops.model.loading import load_original, load_tokenizer
from taylor_ops.source.resolve import resolve
from taylor_ops.texts.prompts import sequences

RESULT = Path(__file__).parent / "results" / "capture.json"
CPU = torch.device("cpu")
DTYPE = "float32"
ROUNDS = 7
GOAL = 0.9


def main() -> None:
    """Measure, and write and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help=f"in place of {ROUNDS}")
    parser.add_argument("--tokens", type=int, help="tokens of the text to try")
    arguments = parser.parse_args()
    calibration = Calibration(tokens=arguments.tokens) if arguments.tokens else Calibration()
    with tempfile.TemporaryDirectory() as scratch:
        source = resolve(SOURCE, Path(scratch) / "source", _silent).folder
        result = {
            "command": typed("capture"),
            "device": device_description(CPU),
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "calibration": calibration.model_dump(mode="json"),
            "goal": GOAL,
            **_measured(source, calibration, Path(scratch) / "ranges", arguments.rounds or ROUNDS),
        }
    if not arguments.rounds and not arguments.tokens:
        write_result(RESULT, "capture", result)
    _show(result)


def _measured(source: Path, calibration: Calibration, folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds of each in each round, and the ratio of their throughputs."""
    texts = sequences(calibration.texts, load_tokenizer(source), calibration.tokens, calibration.sequence_tokens)
    batches = batches_of(texts, calibration.batch_size)
    seconds: dict[str, list[float]] = {"capture": [], "load": [], "forward": []}
    for number in range(rounds):
        for name in ("capture", "forward") if number % 2 else ("forward", "capture"):
            start = time.perf_counter()
            if name == "capture":
                capture(source, DTYPE, calibration, CPU, folder, _silent)
            else:
                model = load_original(source, DTYPE, CPU)
                loaded = time.perf_counter()
                seconds["load"].append(loaded - start)
                start = loaded
                _forward(model, batches)
            seconds[name].append(time.perf_counter() - start)
    pairs = list(zip(seconds["forward"], seconds["capture"], strict=True))
    loading = zip(seconds["load"], pairs, strict=True)
    return {
        "tokens": sum(map(len, texts)),
        "seconds": seconds,
        "ratio": _spread([plain / captured for plain, captured in pairs]),
        "ratio_with_loading": _spread([(load + plain) / captured for load, (plain, captured) in loading]),
    }


@torch.inference_mode()
def _forward(model: Any, batches: Sequence[Tensor]) -> None:
    for ids in batches:
        model.base_model(input_ids=ids, use_cache=False)


def _spread(ratios: list[float]) -> dict[str, Any]:
    return {"median": statistics.median(ratios), "rounds": ratios}


def _show(result: dict[str, Any]) -> None:
    table = Table("", "tokens/s, median", title=f"{result['tokens']} tokens, {len(result['seconds']['load'])} rounds")
    for name in ("forward", "capture"):
        table.add_row(name, f"{result['tokens'] / statistics.median(result['seconds'][name]):.0f}")
    for name, key in (("capture / forward", "ratio"), ("the same, with loading the model", "ratio_with_loading")):
        spread = result[key]
        low, high = min(spread["rounds"]), max(spread["rounds"])
        table.add_row(name, f"{spread['median']:.2f} ({low:.2f} to {high:.2f})")
    Console().print(table, f"goal: {result['goal']}")


def _silent(_done: int, _total: int) -> None:
    """Ignore progress."""


if __name__ == "__main__":
    main()
