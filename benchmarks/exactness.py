"""Convert SmolLM2-135M-Instruct and compare its tokens with the original's, on three data sets and a running text.

    python -m benchmarks.exactness --data FOLDER [--dtype float32|bfloat16] [--only SET] [--limit N] [--tolerance X]

FOLDER holds gsm8k.jsonl, humaneval.jsonl, truthfulqa.jsonl and wikitext2_valid.txt. The plan is the cheapest that keeps
the tolerance of release_configs/smollm2.yaml. 200 GSM8K, 82 HumanEval and 200 TruthfulQA prompts are continued by 128
tokens each, by the original, by the original in smaller batches (the noise floor) and by the bundle. The goals: in
float32 every prompt is equal and perplexities are equal to 1e-4, in bfloat16 there are no more divergences than in the
floor.

It takes one to two hours on two cores, and 9 GB. The JSON is written anew after every data set. `--only` adds its
result to those of the same plan. `--limit N` tries N prompts of each data set and N sequences of the running text,
`--tolerance X` another tolerance than that of the config. Both write to another file.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

from benchmarks.measurement import fresh_part, write_result
from taylor_ops.capture.capture import capture
from taylor_ops.config.conversion import Conversion
from taylor_ops.config.exactness import Exactness
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config.texts import TextSource
from taylor_ops.config_file import read
from taylor_ops.conversion.convert import convert
from taylor_ops.conversion.terms import Subject
from taylor_ops.errors import GateRejected
from taylor_ops.exactness.gate import require_exact
from taylor_ops.exactness.record import Comparison, ExactnessRecord
from taylor_ops.exactness.validate import validate
from taylor_ops.machine.devices import device_description
from taylor_ops.model.original import Original
from taylor_ops.presentation.wording import count, figure, fixed
from taylor_ops.series.plan import Plan
from taylor_ops.source.resolve import resolve

RESULTS = Path(__file__).parent / "results"
CONFIG = Path("release_configs/smollm2.yaml")
CPU = torch.device("cpu")
PROMPTS = {"humaneval": 82, "truthfulqa": 200, "gsm8k": 200}
NEW_TOKENS = 128
BATCH_SIZE, FLOOR_BATCH_SIZE = 64, 32
SEQUENCE_TOKENS = 512
RUNNING_TOKENS = 32 * SEQUENCE_TOKENS
PERPLEXITY_LIMIT = 1e-4


def main() -> None:
    """Convert the model, validate one data set after the other, and write and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of both models")
    parser.add_argument("--only", choices=list(PROMPTS), help="one of the data sets")
    parser.add_argument("--limit", type=int, help="prompts of each data set, and sequences of the running text")
    parser.add_argument("--tolerance", help="of the conversion, in place of the config's")
    arguments = parser.parse_args()
    tried = {name: value for name in ("limit", "tolerance") if (value := getattr(arguments, name))}
    beside = "".join(f"-{name}-{value}" for name, value in tried.items())
    file = RESULTS / f"exactness-{arguments.dtype}{beside}.json"
    config = read.read(CONFIG, {"conversion.dtype": arguments.dtype}).config
    if arguments.tolerance:
        values = config.conversion.model_dump() | {"tolerance": float(arguments.tolerance)}
        config = config.model_copy(update={"conversion": Conversion.model_validate(values)})
    with tempfile.TemporaryDirectory() as scratch:
        subject, bundle, plan = _converted(config, Path(scratch))
        result: dict[str, Any] = {
            "command": f"python -m benchmarks.exactness --data FOLDER --dtype {arguments.dtype}"
            + "".join(f" --{name} {value}" for name, value in tried.items()),
            "device": device_description(CPU),
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "conversion": config.conversion.model_dump(mode="json"),
            "calibration": config.calibration.model_dump(mode="json"),
            "plan": plan.plain() | {"mean_order": plan.mean_order},
            "data_sets": {},
        }
        for settings in _settings(arguments.data, arguments.limit):
            name, start = settings.prompts[0].name, time.monotonic()
            if arguments.only not in (None, name):
                continue
            record = validate(subject, bundle, settings, CPU, _shown(f"{name}: batch"))
            result["data_sets"] = _held(file, result) | {
                name: {"gate": _gate(record), "seconds": round(time.monotonic() - start), "record": record.plain()}
            }
            records = [ExactnessRecord.model_validate(one["record"]) for one in result["data_sets"].values()]
            result["found"] = _found(records)
            write_result(file, "exactness", result, finished=result["data_sets"].keys() == PROMPTS.keys())
            _print(records, arguments.dtype)


def _held(file: Path, result: dict[str, Any]) -> dict[str, Any]:
    """The records that an earlier run wrote with the same code, for the same plan, on the same machine."""
    held = fresh_part(file)
    same = all(held.get(key) == result[key] for key in ("device", "versions", "conversion", "calibration", "plan"))
    return dict(held["data_sets"]) if same else {}


def _converted(config: ReleaseConfig, scratch: Path) -> tuple[Subject, Path, Plan]:
    """The original with its captured ranges, its bundle below `scratch`, and the plan of the bundle."""
    dtype = config.conversion.dtype
    original = resolve(config.source, scratch, _shown("resolve: tensor")).folder
    folder = scratch / "ranges"
    captured = capture(original, dtype, config.calibration, CPU, folder, _shown("capture: sequence"))
    subject = Subject(Original(original), folder / captured.file, config.conversion)
    plan = subject.expansions().ladder()[0]
    convert(subject, plan, scratch / "bundle", _shown("convert: layer"))
    return subject, scratch / "bundle", plan


def _settings(data: Path, limit: int | None) -> list[Exactness]:
    """One comparison for each data set, the shortest first. The first one includes the running text."""
    running_text = (TextSource(name="wikitext2", file=data / "wikitext2_valid.txt"),)
    return [
        Exactness(
            prompts=(
                TextSource(
                    name=name,
                    file=data / f"{name}.jsonl",
                    column="prompt",
                    # HumanEval is code to go on with, the others are questions.
                    chat_template=name != "humaneval",
                    limit=min(number, limit or number),
                ),
            ),
            running_text=running_text if first else (),
            running_tokens=SEQUENCE_TOKENS * limit if limit else RUNNING_TOKENS,
            new_tokens=NEW_TOKENS,
            batch_size=BATCH_SIZE,
            floor_batch_size=FLOOR_BATCH_SIZE,
        )
        for first, (name, number) in zip((True, False, False), PROMPTS.items(), strict=True)
    ]


def _gate(record: ExactnessRecord) -> str:
    """`passed`, or why the exactness gate of a release would reject this."""
    try:
        require_exact(record)
    except GateRejected as rejected:
        return rejected.cause
    return "passed"


def _found(records: list[ExactnessRecord]) -> dict[str, Any]:
    """The goals beside what was reached, over all data sets so far."""
    data_sets = [data_set for record in records for data_set in record.data_sets]
    bundle, floor = (_rate([getattr(data_set, run) for data_set in data_sets]) for run in ("bundle", "floor"))
    differences = [abs(text.bundle / text.original - 1) for record in records for text in record.perplexity]
    return {
        "bundle": bundle,
        "floor": floor,
        "every_prompt_equal": bundle["diverged"] == 0,
        "divergence_rate_no_higher_than_the_floor": bundle["diverged_per_token"] <= floor["diverged_per_token"],
        "perplexity_relative_difference": max(differences, default=None),
        "perplexity_equal": max(differences) <= PERPLEXITY_LIMIT if differences else None,
    }


def _rate(runs: list[Comparison]) -> dict[str, Any]:
    """How many prompts diverged, and how often. A prompt is compared up to and including its divergence."""
    diverged, tokens = sum(len(run.divergences) for run in runs), sum(run.tokens_compared for run in runs)
    return {
        "prompts": sum(run.prompts for run in runs),
        "diverged": diverged,
        "tokens_compared": tokens,
        "diverged_per_token": diverged / tokens,
    }


def _print(records: list[ExactnessRecord], dtype: str) -> None:
    # Wide enough for every heading, where a log has no width of its own.
    console = Console(width=100)
    headings = [
        "data set",
        "run",
        "prompts equal",
        "tokens",
        "diverged/1000",
        "KL mean",
        "KL largest",
        "log-prob diff.",
    ]
    table = _table(f"Exactness in {dtype}, {NEW_TOKENS} new tokens; divergences per 1000 tokens; nats", headings)
    for record in records:
        for data_set in record.data_sets:
            table.add_row(data_set.name, "bundle", *_cells(data_set.bundle))
            table.add_row("", "floor", *_cells(data_set.floor))
    console.print(table)
    table = _table("Perplexity", ["running text", "tokens", "original", "bundle", "relative difference"])
    for record in records:
        for text in record.perplexity:
            apart = figure(text.bundle / text.original - 1)
            table.add_row(text.name, count(text.tokens), fixed(text.original, 4), fixed(text.bundle, 4), apart)
    console.print(table)


def _cells(run: Comparison) -> list[str]:
    return [
        f"{run.prompts_equal} of {run.prompts}",
        count(run.tokens_compared),
        fixed(1000 * len(run.divergences) / run.tokens_compared, 2),
        figure(run.kl_mean),
        figure(run.kl_max),
        figure(run.log_prob_difference_max),
    ]


def _table(title: str, headings: list[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("data set", "run", "running text") else "right")
    return table


def _shown(what: str) -> Callable[[int, int], None]:
    """Progress as lines that suit a log, at most about 20 of them."""

    def show(done: int, total: int) -> None:
        if done == total or done % math.ceil(total / 20) == 0:
            print(f"{what} {done} of {total}", flush=True)

    return show


if __name__ == "__main__":
    main()
