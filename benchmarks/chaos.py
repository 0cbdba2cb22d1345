"""Inject faults, kill, and spoil configs and checkpoints at random, and count how each was answered.

    python -m benchmarks.chaos                                  # everything, about ten minutes on two cores
    python -m benchmarks.chaos --only "file cut" --seed 17      # one case again, with what was said

Four groups, each in processes of its own, on loopback and in a temporary folder:

- configs: release configs are changed at random and given to `check`; `config.json`, the index, tokenizer and
  generation config of a tiny model to `plan`.
- checkpoints: the weights of tiny models, safetensors and GGUF, are changed and resolved. What is taken is compared
  with what plain transformers loads, tensor by tensor.
- hub: requests of a publish on the stand-in for the Hub go wrong: statuses, cut and wrong bodies, closed and slow
  connections, the token echoed. A reader may see the old or the new release only, and a rerun completes.
- kills: releases of a tiny model get SIGKILL at random moments and are run again, to the same bytes.

A bad answer is a traceback, a wrong exit status, an error without place or remedy, or none in time. A wrong accept is
a change that was taken although plain transformers loads another model or none, a part of a release that could be seen,
or a rerun that ends with other bytes. Exit status 1 if there was any.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.command import typed
from benchmarks.injected.case import Answer, Case, Verdict
from benchmarks.injected.worker import Worker
from benchmarks.measurement import write_result

RESULT = Path(__file__).parent / "results" / "chaos.json"
VERDICTS: tuple[Verdict, ...] = ("well", "badly", "wrong accept")


@dataclass(frozen=True)
class Group:
    """Cases of one sort. room: the module that answers them; cases: how many; limit: seconds for each."""

    room: str
    cases: int
    limit: float

    def kinds(self) -> tuple[str, ...]:
        """The kinds of its cases."""
        found: tuple[str, ...] = import_module(self.room).KINDS
        return found


GROUPS = {
    "configs": Group("benchmarks.injected.configs", 300, 10),
    "checkpoints": Group("benchmarks.injected.checkpoints", 300, 10),
    "hub": Group("benchmarks.injected.hub", 300, 60),
    "kills": Group("benchmarks.injected.kills", 20, 300),
}
LANES = (("configs", "checkpoints"), ("kills", "hub"))
"""Groups that go on beside each other, one process at a time for each lane."""

Told = Callable[[str, Case, Answer], None]


def cases(kinds: Sequence[str], count: int, seed: int) -> Iterator[Case]:
    """So many cases, of all kinds in turn, each with a seed of its own."""
    for number in range(count):
        yield Case(kinds[number % len(kinds)], seed + number)


def answers(names: Sequence[str], counts: dict[str, int], seed: int, scratch: Path, told: Told) -> None:
    """Ask the cases of some groups, one after the other, and tell every answer."""
    for name in names:
        group = GROUPS[name]
        worker = Worker(group.room, scratch / name, group.limit)
        try:
            for case in cases(group.kinds(), counts[name], seed):
                told(name, case, worker.ask(case))
        finally:
            worker.end()


def summary(found: Sequence[tuple[str, Case, Answer]]) -> dict[str, Any]:
    """The counts of each group and kind, of all together, and every case that was not answered well."""
    groups = {name: [(case, answer) for group, case, answer in found if group == name] for name in GROUPS}
    bad = [
        {"group": name, **asdict(case), "verdict": answer.verdict, "why": answer.why}
        for name, case, answer in found
        if answer.verdict != "well"
    ]
    return {
        **_counted([answer for _, _, answer in found]),
        "groups": {
            name: _counted([answer for _, answer in asked])
            | {
                "kinds": {
                    kind: _counted([answer for case, answer in asked if case.kind == kind])
                    for kind in dict.fromkeys(case.kind for case, _ in asked)
                }
            }
            for name, asked in groups.items()
            if asked
        },
        "bad": bad,
    }


def _counted(given: Sequence[Answer]) -> dict[str, int]:
    verdicts = Counter(answer.verdict for answer in given)
    return {
        "injected": sum(answer.injected for answer in given),
        "cases": len(given),
        "done": sum(answer.done for answer in given),
        **{verdict.replace(" ", "_"): verdicts[verdict] for verdict in VERDICTS},
    }


def main() -> None:
    """Inject everything, or one case, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--counts", type=int, help="so many cases of each group")
    parser.add_argument("--groups", choices=GROUPS, nargs="+", default=list(GROUPS))
    parser.add_argument("--only", metavar="KIND", help="one case of this kind, with --seed, and no result")
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    console = Console(soft_wrap=True)
    with tempfile.TemporaryDirectory() as scratch:
        if given.only is not None:
            sys.exit(_again(Case(given.only, given.seed), Path(scratch), console))
        begun = time.monotonic()
        found: list[tuple[str, Case, Answer]] = []

        def told(name: str, case: Case, answer: Answer) -> None:
            found.append((name, case, answer))
            if answer.verdict != "well":
                console.print(f"{answer.verdict}: --only {case.kind!r} --seed {case.seed}: {answer.why}", markup=False)
            elif len(found) % 25 == 0:
                console.print(f"{len(found)} cases in {time.monotonic() - begun:.0f} s")

        counts = {name: given.counts or group.cases for name, group in GROUPS.items()}
        lanes = [[name for name in lane if name in given.groups] for lane in LANES]
        with ThreadPoolExecutor(len(lanes)) as pool:
            for lane in [pool.submit(answers, names, counts, given.seed, Path(scratch), told) for names in lanes]:
                lane.result()
    found.sort(key=lambda one: (list(GROUPS).index(one[0]), one[1].seed))
    result = {"command": typed("chaos"), "seed": given.seed, **summary(found)}
    write_result(given.result, "chaos", result, finished=given.counts is None and set(given.groups) == {*GROUPS})
    _show(result, console)
    sys.exit(1 if result["bad"] else 0)


def _again(case: Case, scratch: Path, console: Console) -> int:
    """Ask one case and say all of its answer."""
    group = next((one for one in GROUPS.values() if case.kind in one.kinds()), None)
    if group is None:
        kinds = ", ".join(kind for one in GROUPS.values() for kind in one.kinds())
        console.print(f"there is no kind {case.kind!r}; there are {kinds}", markup=False)
        return 2
    worker = Worker(group.room, scratch, group.limit)
    try:
        answer = worker.ask(case)
    finally:
        worker.end()
    console.print(f"{answer.verdict}, {'done' if answer.done else 'refused'}: {answer.why}", markup=False)
    return int(answer.verdict != "well")


def _show(result: dict[str, Any], console: Console) -> None:
    table = Table("", "injected", "cases", "answered well", "answered badly", "wrong accepts", title="chaos")
    for name, counted in [*result["groups"].items(), ("all", result)]:
        table.add_row(name, *(str(counted[key]) for key in ("injected", "cases", "well", "badly", "wrong_accept")))
    console.print(table)


if __name__ == "__main__":
    main()
