"""Measure the attacks of the audit on a release of SmolLM2-135M, all 30 layers.

    python -m benchmarks.audit

The source of release_configs/smollm2.yaml is captured over 4096 tokens, converted by the cheapest plan that keeps its
tolerance, and attacked. Goals: rank-one and ratios take at most 60 s together and each recover at least 99.9 % of the
protected weights to 1 %; the collapsed model generates the original's tokens on 24 prompts. It takes about ten minutes
on two cores, and 4 GB of disk.

`--training NAME` runs an attack that trains instead, with a small budget, and adds its result to those in
audit-training.json. Each takes minutes. Least squares runs only with `--attack least_squares`. With `--attack` or
`--config` nothing is written.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.command import typed
from benchmarks.measurement import fresh_part, write_result
from flows.commands.tables import audit_table
from taylor_ops.attacks.conditions import Conditions
from taylor_ops.audit.audit import audit, named
from taylor_ops.audit.record import AuditRecord
from taylor_ops.capture.capture import capture
from taylor_ops.config.audit import Audit
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config_file.read import read
from taylor_ops.conversion.convert import convert
from taylor_ops.conversion.terms import Subject
from taylor_ops.machine.devices import device_description
from taylor_ops.machine.threads import use_threads
from taylor_ops.model.original import Original
from taylor_ops.source.resolve import resolve

CONFIG = Path(__file__).parents[1] / "release_configs" / "smollm2.yaml"
RESULTS = Path(__file__).parent / "results"
CPU = torch.device("cpu")
TOKENS = 4096
SECONDS_GOAL = 60.0
SHARE_GOAL = 0.999
BOTH = ("rank_one", "ratios")
TRAINING = ("distillation", "warm_distillation", "fine_tuning", "lora")
BUDGET = {"samples": 2048, "steps": 150, "tuning_steps": 20}


def main() -> None:
    """Make a release, attack it, and write and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="release config of another model")
    parser.add_argument("--attack", action="append", help="in place of the default attacks; may be repeated")
    parser.add_argument("--training", action="append", choices=TRAINING, help="an attack that trains; may be repeated")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--scratch", type=Path, help="folder for temporary files")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    config = read(arguments.config or CONFIG).config
    settings = named(arguments.training or arguments.attack)
    if arguments.training:
        settings = settings.model_copy(update={"rebuild": (), **BUDGET})
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        record = _attacked(config, settings, Path(scratch))
    measured = {
        "command": typed("audit"),
        "device": device_description(CPU),
        "threads": arguments.threads,
        # Beside other work attacks take longer, and what is left of the slowdown is less certain.
        "load_average": os.getloadavg()[0],
    }
    attacks = {attack.attack: attack.plain() for attack in record.attacks}
    result = measured | {"attacks": attacks} | _goals(record)
    if arguments.training:
        path = RESULTS / "audit-training.json"
        others = fresh_part(path).get("attacks", {})
        each = {name: attack | {"measured": measured} for name, attack in attacks.items()}
        write_result(path, "audit", {"attacks": others | each})
    elif arguments.config is None and arguments.attack is None:
        write_result(RESULTS / "audit.json", "audit", result)
    console = Console()
    console.print(audit_table({attack.attack: attack for attack in record.attacks}))
    if "goals" in result:
        console.print(result["goals"])


def released(config: ReleaseConfig, scratch: Path) -> tuple[Path, Path]:
    """The original of `config` and a release of it by its cheapest plan, as folders below `scratch`."""
    source = resolve(config.source, scratch / "source", _unwatched)
    calibration = config.calibration.model_copy(update={"tokens": TOKENS})
    captured = capture(source.folder, config.conversion.dtype, calibration, CPU, scratch / "ranges", _unwatched)
    subject = Subject(Original(source.folder), scratch / "ranges" / captured.file, config.conversion)
    convert(subject, subject.expansions().ladder()[0], scratch / "bundle", _unwatched)
    return source.folder, scratch / "bundle"


def _attacked(config: ReleaseConfig, settings: Audit, scratch: Path) -> AuditRecord:
    """The audit of a release of `config` that is made in `scratch`."""
    original, bundle = released(config, scratch)
    texts = config.exactness
    conditions = Conditions(texts.prompts, config.latency, CPU, config.seed, scratch / "audit", texts.running_text)
    return audit(original, bundle, settings, _unwatched, conditions)


def _goals(record: AuditRecord) -> dict[str, Any]:
    """The goals beside what was reached. Empty unless all attacks with a goal were run."""
    found = {attack.attack: attack for attack in record.attacks}
    if not set(BOTH) < found.keys() or "collapse" not in found:
        return {}
    rebuilt = found["collapse"].rebuilt
    return {
        "goals": {
            "seconds": sum(found[name].seconds for name in BOTH),
            "seconds_goal": SECONDS_GOAL,
            "least_share_recovered": min(found[name].recovered_1pct for name in BOTH),
            "share_goal": SHARE_GOAL,
            "prompts_equal": rebuilt and rebuilt.prompts_equal,
            "prompts": rebuilt and rebuilt.prompts,
        }
    }


def _unwatched(_done: int, _total: int) -> None:
    """Ignore progress."""


if __name__ == "__main__":
    main()
