"""Release SmolLM2-135M-Instruct four times and report the figures of the design goals.

    python -m benchmarks.release --data FOLDER

The releases are: cold, unchanged, into a second folder and, if `--data` names a folder with gsm8k.jsonl, with GSM8K as
held-out prompts. Each run is `make release`. It takes about half an hour on two cores.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.command import typed
from benchmarks.measurement import write_result
from taylor_ops.storage.files import read_json, sha256_of_tree

RESULT = Path(__file__).parent / "results" / "release.json"
CONFIG = Path("release_configs/smollm2.yaml")


def main() -> None:
    """Run the releases and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with gsm8k.jsonl")
    data = parser.parse_args().data
    with tempfile.TemporaryDirectory() as scratch:
        first, second = Path(scratch) / "first", Path(scratch) / "second"
        cold, record = _release(first, CONFIG)
        again, repeated = _release(first, CONFIG)
        other, _ = _release(second, CONFIG)
        trees = [sha256_of_tree(folder / "hub") for folder in (first, second)]
        result = {
            "command": typed("release"),
            "device": record["slowdown"]["device"],
            "seconds": {"cold": cold, "unchanged": again, "second_folder": other},
            "stages_reused_when_unchanged": all(cost["cached"] for cost in repeated["stages"].values()),
            "peak_rss_bytes": max(cost["peak_rss_bytes"] for cost in record["stages"].values()),
            "byte_identical": trees[0] == trees[1],
            "release": record,
        }
        if data:
            _, with_gsm8k = _release(first, _with_gsm8k(data, Path(scratch)))
            result["gsm8k"] = with_gsm8k["exactness"]["gsm8k"]
    write_result(RESULT, "release", result)
    _show(result)


def _with_gsm8k(data: Path, scratch: Path) -> Path:
    """The config with the first 24 prompts of GSM8K in place of the project's own."""
    document = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    file = str(data.absolute() / "gsm8k.jsonl")
    document["version"] = "1.0.1"
    document["exactness"] = {"prompts": [{"name": "gsm8k", "file": file, "chat_template": True, "limit": 24}]}
    config = scratch / "gsm8k.yaml"
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    return config


def _release(artifacts: Path, config: Path) -> tuple[float, dict[str, Any]]:
    """Seconds of one release, and its record."""
    start = time.monotonic()
    subprocess.run(["make", "release", f"ARTIFACTS={artifacts}", f"CONFIG={config}"], check=True)
    seconds = time.monotonic() - start
    document = yaml.safe_load(config.read_text(encoding="utf-8"))
    return seconds, read_json(artifacts / document["name"] / document["version"] / "release.json")


def _show(result: dict[str, Any]) -> None:
    release = result["release"]
    rows = {
        "device": result["device"],
        "seconds, cold / unchanged / second folder": " / ".join(f"{s:.0f}" for s in result["seconds"].values()),
        "every stage reused when unchanged": result["stages_reused_when_unchanged"],
        "peak memory, GB": f"{result['peak_rss_bytes'] / 1e9:.2f}",
        "two folders byte-identical": result["byte_identical"],
        "slowdown, achieved (target)": f"{release['slowdown']['achieved']:.2f} ({release['slowdown']['target']:.2f})",
        "mean order": f"{release['coverage']['mean_order']:.1f}",
    }
    data_sets = release["exactness"] | ({"gsm8k": result["gsm8k"]} if "gsm8k" in result else {})
    for name, data_set in data_sets.items():
        rows[f"prompts equal, {name}"] = f"{data_set['bundle']['prompts_equal']} of {data_set['bundle']['prompts']}"
    for label, value in rows.items():
        print(f"{label:45} {value}")


if __name__ == "__main__":
    main()
