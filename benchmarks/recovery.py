"""Kill runs with SIGKILL in every stage, in three ways each, and count the runs that one retry finishes.

    python -m benchmarks.recovery

A tiny model is released under a real Prefect server, database and worker. Each stage is killed in three ways: the
process of the run alone, the process and the worker as when a machine dies (the automation for dead runs finds it,
after 40 seconds in this benchmark), or the server, without which the run goes on until the server is back. The goal is
a run that is Completed after at most one retry, repeats no finished stage, and gives the bytes of an undisturbed run.
Before that, three runs at once queue for one slot of the limit `gpu`, which stages hold here without a GPU.

It takes about an hour on two cores. `--keep` continues a result that was begun with the present code.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.command import typed
from benchmarks.measurement import fresh_part, write_result
from taylor_ops.storage.files import sha256_of_tree
from tests.support.killed import DIED, STAGES, Halted, deploy_halted, silence_of
from tests.support.operated import Prefect
from tests.support.tiny_models import save_tiny_model
from tests.support.tiny_release import write_tiny_config

RESULT = Path(__file__).parent / "results" / "recovery.json"
SILENCE = {"process": 90, "worker": 40, "server": 90}


def main() -> None:
    """Kill and retry, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--died", choices=DIED, nargs="+", default=DIED)
    parser.add_argument("--stages", choices=STAGES, nargs="+", default=STAGES)
    parser.add_argument("--keep", action="store_true", help="do only the kills that the result does not have yet")
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        prefect = Prefect(place)
        try:
            prefect.start("prefect server start")
            config = write_tiny_config(place / "tiny.yaml", save_tiny_model(place / "model"))
            deployment = deploy_halted(prefect, config)
            prefect.start("prefect worker start --pool local")
            undisturbed = Halted(prefect, deployment, place / "undisturbed")
            undisturbed.until(undisturbed.start(), "COMPLETED")
            wanted = sha256_of_tree(undisturbed.artifacts / "hub")
            queued = _queued([Halted(prefect, deployment, place / name, gpu=True) for name in "abc"])
            rows = fresh_part(given.result).get("runs", []) if given.keep else []
            done = {(row["stage"], row["died"]) for row in rows}
            for stage, died in (kill for kill in product(given.stages, given.died) if kill not in done):
                silence_of(prefect, SILENCE[died])
                rows.append(_killed(Halted(prefect, deployment, place / f"{died}-{stage}"), died, stage, wanted))
                print(*rows[-1].values(), flush=True)
                _write(given.result, rows, queued, finished=False)
            _write(given.result, rows, queued)
        finally:
            prefect.stop()
    count = sum(map(_as_asked, rows))
    print(f"{count} of {len(rows)} runs ended as asked, with {Counter(row['retries'] for row in rows)} retries")
    print(f"{queued['completed']} of 3 at once completed, with {queued['at_once']} at most in a GPU stage")


def _write(result: Path, rows: list[dict[str, Any]], queued: dict[str, int], finished: bool = True) -> None:
    """Write the result so far, because a whole one takes long."""
    count = sum(map(_as_asked, rows))
    document = {"command": typed("recovery"), "as_asked": count, "of": len(rows), "runs": rows, "queued": queued}
    write_result(result, "recovery", document, finished=finished)


def _as_asked(row: dict[str, Any]) -> bool:
    return bool(row["completed"] and row["same_bytes"] and not row["repeated"])


def _queued(runs: list[Halted]) -> dict[str, int]:
    """Submit releases at once with one slot of the limit `gpu`. Count those that complete, and that hold it at once."""
    begun = [(halted, halted.start()) for halted in runs]
    ends = [halted.until(run, "COMPLETED", "FAILED", "CRASHED") for halted, run in begun]
    held = [slot for halted in runs for slot in halted.held()]
    at_once = [sum(taken <= start < given_back for taken, given_back in held) for start, _ in held]
    return {"completed": ends.count("COMPLETED"), "slots": len(held), "at_once": max(at_once)}


def _killed(halted: Halted, died: str, stage: str, wanted: dict[str, str]) -> dict[str, Any]:
    """Kill one run in a stage, and let it finish."""
    run = halted.start(stage)
    halted.kill(run, died)
    retries = 0
    state = halted.until(run, "COMPLETED", "FAILED", "CRASHED")
    if state != "COMPLETED":
        retries = 1
        halted.retry(run)
        state = halted.until(run, "COMPLETED", "FAILED")
    finished = Counter(halted.finished())
    return {
        "died": died,
        "stage": stage,
        "retries": retries,
        "completed": state == "COMPLETED",
        "repeated": sorted(name for name, times in finished.items() if times > 1),
        "same_bytes": sha256_of_tree(halted.artifacts / "hub") == wanted,
    }


if __name__ == "__main__":
    main()
