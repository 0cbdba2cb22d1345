"""Release SmolLM2-135M-Instruct and report the figures of the design goals, each stage beside its floor.

    python -m benchmarks.release --data FOLDER

The releases are: cold, unchanged, into a second folder and, if `--data` names a folder with gsm8k.jsonl, with GSM8K as
held-out prompts. Each run is `make release`. After the cold one, the floor of each stage is measured: the plain passes,
reads and writes that it needs (benchmarks/floors.py). Then five fresh processes measure the slowdown of the bundle. It
takes about half an hour on two cores, on a machine that does nothing else, and disk for three bundles.

`--once` stops after the cold release and its floors, `--config` releases something else. Both write nothing unless
`--result` names a file.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.command import typed
from benchmarks.floors import Floors, Seconds, floor_of
from benchmarks.loadings import loadings, within
from benchmarks.measurement import write_result
from taylor_ops.config_file.read import read
from taylor_ops.storage.files import read_json, sha256_of_tree

RESULT = Path(__file__).parent / "results" / "release.json"
CONFIG = Path("release_configs/smollm2.yaml")
LOADINGS = 5


def main() -> None:
    """Run the releases and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with gsm8k.jsonl")
    parser.add_argument("--once", action="store_true", help="only the cold release and the floors")
    parser.add_argument("--config", type=Path, help="another release config")
    parser.add_argument("--result", type=Path, help="another file to write")
    parser.add_argument("--scratch", type=Path, help="folder for the releases, on the disk to measure")
    given = parser.parse_args()
    config = given.config or CONFIG
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        result = _measured(config, Path(scratch), given.once)
        if given.data and not given.once:
            _, with_gsm8k = _release(Path(scratch) / "first", _with_gsm8k(config, given.data, Path(scratch)))
            result["gsm8k"] = with_gsm8k["exactness"]["gsm8k"]
    if given.result or not (given.once or given.config):
        write_result(given.result or RESULT, "release", result)
    _show(result)


def _measured(config: Path, scratch: Path, once: bool) -> dict[str, Any]:
    first, second = scratch / "first", scratch / "second"
    cold, record = _release(first, config)
    needs = Floors(read(config).config, first, scratch).measured()
    stages = beside_floors(record["stages"], needs)
    result = {
        "command": typed("release"),
        "device": record["slowdown"]["device"],
        "seconds": {"cold": cold},
        "stages": stages,
        "all_stages": beside(*(sum(row[key] for row in stages.values()) for key in ("seconds", "floor"))),
        "peak_rss_bytes": max(cost["peak_rss_bytes"] for cost in record["stages"].values()),
        "release": record,
    }
    if once:
        return result
    result |= _in_fresh_processes(first / record["name"], record)
    again, repeated = _release(first, config)
    other, _ = _release(second, config)
    trees = [sha256_of_tree(folder / "hub") for folder in (first, second)]
    result["seconds"] |= {"unchanged": again, "second_folder": other}
    return result | {
        "stages_reused_when_unchanged": all(cost["cached"] for cost in repeated["stages"].values()),
        "byte_identical": trees[0] == trees[1],
    }


def _in_fresh_processes(place: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """What fresh processes measure of a release below `place`, and how often its interval holds that."""
    original = Path(read_json(place / "stages" / "resolve.json")["record"]["folder"])
    bundle = place / record["version"] / record["bundle"]["path"]
    found = loadings(original, bundle, record["slowdown"]["target"], LOADINGS)
    return {"loadings": found, "loadings_within_the_interval": within(record["slowdown"]["ci95"], found)}


def beside_floors(costs: Mapping[str, Mapping[str, Any]], needs: Mapping[str, Seconds]) -> dict[str, dict[str, Any]]:
    """What each stage took beside its floor, and beside nothing if it needs nothing that could be timed alone.

    Args:
        costs: Seconds and peak memory of each stage, as `release.json` has them.
        needs: What each stage needs. A name such as `calibrate + transfer` stands for several stages together.
    """
    together = {name: [stage for stage in name.split(" + ") if stage in costs] for name in needs}
    covered = {stage for stages in together.values() for stage in stages}
    together |= {stage: [stage] for stage in costs if stage not in covered}
    rows = {}
    for name, stages in together.items():
        if stages:
            seconds, samples = sum(costs[stage]["seconds"] for stage in stages), needs.get(name, {})
            rows[name] = beside(seconds, floor_of(samples)) | {
                "peak_rss_bytes": max(costs[stage]["peak_rss_bytes"] for stage in stages),
                "samples": samples,
            }
    return rows


def beside(seconds: float, floor: float) -> dict[str, Any]:
    """Seconds, their floor, and the ratio of the two; None without a floor."""
    return {"seconds": seconds, "floor": floor, "ratio": seconds / floor if floor else None}


def _with_gsm8k(config: Path, data: Path, scratch: Path) -> Path:
    """The config with the first 24 prompts of GSM8K in place of the project's own."""
    document = yaml.safe_load(config.read_text(encoding="utf-8"))
    file = str(data.absolute() / "gsm8k.jsonl")
    document["version"] = "1.0.1"
    document["exactness"] = {"prompts": [{"name": "gsm8k", "file": file, "chat_template": True, "limit": 24}]}
    changed = scratch / "gsm8k.yaml"
    changed.write_text(yaml.safe_dump(document), encoding="utf-8")
    return changed


def _release(artifacts: Path, config: Path) -> tuple[float, dict[str, Any]]:
    """Seconds of one release, and its record."""
    start = time.monotonic()
    subprocess.run(["make", "release", f"ARTIFACTS={artifacts}", f"CONFIG={config}"], check=True)
    seconds = time.monotonic() - start
    document = yaml.safe_load(config.read_text(encoding="utf-8"))
    return seconds, read_json(artifacts / document["name"] / document["version"] / "release.json")


def _show(result: dict[str, Any]) -> None:
    print(f"{'stage':22} {'seconds':>8} {'floor':>8} {'ratio':>6}  peak memory, GB")
    for name, row in [*result["stages"].items(), ("all", result["all_stages"])]:
        peak = f"{row['peak_rss_bytes'] / 1e9:.2f}" if "peak_rss_bytes" in row else ""
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.1f}"
        print(f"{name:22} {row['seconds']:8.1f} {row['floor']:8.1f} {ratio:>6}  {peak}")
    release = result["release"]
    rows = {
        "device": result["device"],
        f"seconds, {' / '.join(result['seconds'])}": " / ".join(f"{s:.0f}" for s in result["seconds"].values()),
        "every stage reused when unchanged": result.get("stages_reused_when_unchanged", "not tried"),
        "peak memory, GB": f"{result['peak_rss_bytes'] / 1e9:.2f}",
        "two folders byte-identical": result.get("byte_identical", "not tried"),
        "slowdown, achieved (target)": f"{release['slowdown']['achieved']:.2f} ({release['slowdown']['target']:.2f})",
        "mean order": f"{release['coverage']['mean_order']:.1f}",
    }
    if "loadings" in result:
        fresh = ", ".join(f"{one['slowdown']:.2f}" for one in result["loadings"])
        low, high = release["slowdown"]["ci95"]
        rows["slowdown in fresh processes (interval)"] = f"{fresh} ({low:.2f} to {high:.2f})"
    data_sets = release["exactness"] | ({"gsm8k": result["gsm8k"]} if "gsm8k" in result else {})
    for name, data_set in data_sets.items():
        rows[f"prompts equal, {name}"] = f"{data_set['bundle']['prompts_equal']} of {data_set['bundle']['prompts']}"
    for label, value in rows.items():
        print(f"{label:45} {value}")


if __name__ == "__main__":
    main()
