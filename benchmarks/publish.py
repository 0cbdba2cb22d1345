"""Measure the speed of publishing on a Hub beside a plain upload, and how much a rerun after a failure sends again.

    python -m benchmarks.publish

The Hub is the stand-in of the tests, in a process of its own on loopback. The real client speaks to it over git LFS.
Both ways send a folder of random shards of equal size, in turn, with other bytes each time: `publish_to_hub`, which
also reads, verifies and tags, and `upload_folder` alone. The hashes of the files are computed before, as in a release.
In the failure, the storage refuses every shard after 90 % of them. Then it recovers, and the release runs again.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measurement import write_result
from taylor_ops.progress import silent
from taylor_ops.storage.files import sha256_of_tree, size
from tests.support.dependents import end_with_this_process

RESULT = Path(__file__).parent / "results" / "publish.json"
MEGABYTES, SHARDS, ROUNDS = 500, 20, 5
FAILS_AT = 0.9
GOALS = {"speed": 0.8, "sent_again": 0.15}


def main() -> None:
    """Publish and upload in turn, then fail once, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=MEGABYTES)
    parser.add_argument("--shards", type=int, default=SHARDS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--folder", type=Path, help="where to write; a disk in memory keeps the disk out of it")
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        command = [sys.executable, "-m", "tests.support.loopback_hub.server", str(Path(scratch) / "hub")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            end_with_this_process(server)
            try:
                assert server.stdout is not None
                result = _measured(server.stdout.readline().strip(), Path(scratch) / "bundle", given)
            finally:
                server.terminate()
    write_result(given.result, "publish", result)
    _show(result)


def _measured(endpoint: str, bundle: Path, given: argparse.Namespace) -> dict[str, Any]:
    # Before the client is imported, which reads them once.
    os.environ |= {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    from tests.support.loopback_hub.server import WRITER

    os.environ["HF_TOKEN"] = WRITER
    ways: dict[str, Callable[[Path, dict[str, str], str], None]] = {"publish": _publish, "plain": _upload}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    # The first of each is not counted: it pays for imports and connections.
    for number in range(given.rounds + 1):
        for name in list(ways) if number % 2 else reversed(ways):
            _write(bundle, given.megabytes, given.shards, f"{name} {number}")
            files = sha256_of_tree(bundle)
            start = time.perf_counter()
            ways[name](bundle, files, f"org/{name}-{number}")
            if number:
                seconds[name].append(time.perf_counter() - start)
    rounds = [plain / published for plain, published in zip(seconds["plain"], seconds["publish"], strict=True)]
    _write(bundle, given.megabytes, given.shards, "fails")
    return {
        "bytes": sum(path.stat().st_size for path in bundle.iterdir()),
        "shards": given.shards,
        "seconds": seconds,
        "speed": {"median": statistics.median(rounds), "rounds": rounds},
        "fails_at": FAILS_AT,
        "sent_again": _sent_again(endpoint, bundle, given.shards),
        "goals": GOALS,
    }


def _write(bundle: Path, megabytes: int, shards: int, seed: str) -> None:
    shutil.rmtree(bundle, ignore_errors=True)
    bundle.mkdir(parents=True)
    draw = random.Random(seed)
    (bundle / "README.md").write_text(f"---\nlicense: mit\n---\n# {seed}\n", encoding="utf-8")
    for number in range(shards):
        name = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        (bundle / name).write_bytes(draw.randbytes(megabytes * 1_000_000 // shards))


def _publish(bundle: Path, files: dict[str, str], repo_id: str) -> None:
    """Publish as a release does."""
    from taylor_ops.config.publish import Publish
    from taylor_ops.publishing.hub import publish_to_hub

    where = Publish(target="hub", repo_id=repo_id)
    publish_to_hub(where, bundle, files, "1.0.0", None, silent)


def _upload(bundle: Path, _files: dict[str, str], repo_id: str) -> None:
    """Upload with the client alone."""
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repo_id, private=True)
    api.upload_folder(repo_id=repo_id, folder_path=bundle)


def _sent_again(endpoint: str, bundle: Path, shards: int) -> float:
    """Share of the bytes that storage received more than once, if publishing fails at 90 % and runs again."""
    import httpx2

    from taylor_ops.errors import ReleaseError

    control = f"{endpoint}/-/faults"
    files = sha256_of_tree(bundle)
    before = httpx2.get(control).json()["received"]
    refusal = {"wrong": "answer", "kind": "lfs_put", "status": 403, "after": int(FAILS_AT * shards), "times": 10**6}
    httpx2.post(control, json=refusal)
    try:
        _publish(bundle, files, "org/fails")
    except ReleaseError as error:
        Console().print(f"as ordered: {error.cause}")
    else:
        raise AssertionError("nothing failed")
    httpx2.delete(control)
    _publish(bundle, files, "org/fails")
    received = httpx2.get(control).json()["received"] - before
    total = sum(path.stat().st_size for path in bundle.glob("*.safetensors"))
    return float(received / total - 1)


def _show(result: dict[str, Any]) -> None:
    table = Table("", "measured", "goal", title=f"{size(result['bytes'])} in {result['shards']} shards")
    speed = result["speed"]
    low, high = min(speed["rounds"]), max(speed["rounds"])
    for name in ("publish", "plain"):
        rate = result["bytes"] / statistics.median(result["seconds"][name]) / 1e6
        table.add_row(f"{name}, MB/s", f"{rate:.0f}", "")
    table.add_row("publish over plain", f"{speed['median']:.2f} ({low:.2f} to {high:.2f})", f"{GOALS['speed']}")
    table.add_row("sent again after a failure at 90 %", f"{result['sent_again']:.1%}", f"{GOALS['sent_again']:.0%}")
    Console().print(table)


if __name__ == "__main__":
    main()
