"""One fault that is injected, and how it was answered: well, badly, or by accepting what is wrong."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Literal

from taylor_ops.errors import ReleaseError

Verdict = Literal["well", "badly", "wrong accept"]
# An error that nobody foresaw is told by the name of its class.
JARGON = re.compile(r"Traceback|unexpected [A-Z]\w*:")
REFUSED = (2,)
"""Exit statuses of bad input: what is wrong there is found before any work."""


@dataclass(frozen=True)
class Case:
    """A fault that can be repeated: its kind, and the seed of all that is drawn."""

    kind: str
    seed: int


@dataclass(frozen=True)
class Answer:
    """How a case was answered.

    Attributes:
        verdict: well; badly, if the answer breaks the contract of errors; wrong accept, if what is wrong was taken
        done: whether the work was done, and not refused
        why: what is wrong with the answer, empty if nothing
        injected: how many faults it was
    """

    verdict: Verdict
    done: bool
    why: str = ""
    injected: int = 1


Answering = Callable[[Case], Answer]


def of_call(call: Callable[[], str], places: Sequence[object], statuses: Sequence[int] = REFUSED) -> Answer:
    """How a call answers, which does the work and says what is wrong with its result, empty if nothing.

    Args:
        call: Does the work.
        places: An error has to name one of them: files, folders or keys.
        statuses: Exit statuses that an error may have.
    """
    try:
        wrong = call()
    except ReleaseError as error:
        return _refused(error.exit_status, str(error).split("\n"), places, statuses)
    except Exception as error:  # noqa: BLE001
        where = traceback.extract_tb(error.__traceback__)[-1]
        return Answer(
            "badly", False, f"unexpected {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        )
    return Answer("wrong accept" if wrong else "well", True, wrong)


def of_command(done: CompletedProcess[str], places: Sequence[object], taken: Callable[[], str]) -> Answer:
    """How a command answered that was given bad input: with an error of two lines, or a result to be judged.

    Args:
        done: The command.
        places: An error has to name one of them.
        taken: Says what is wrong with what the command took, empty if nothing.
    """
    if done.returncode == 0:
        try:
            wrong = taken()
        except Exception as error:  # noqa: BLE001
            wrong = f"it is taken, and then {type(error).__name__}: {error}"
        return Answer("wrong accept" if wrong else "well", True, wrong)
    # A progress bar is drawn over itself.
    lines = [line for line in done.stderr.split("\n") if line and "\r" not in line]
    if [line.partition(": ")[0] for line in lines] != ["error", "remedy"]:
        return Answer("badly", False, f"it is no line of cause and one of remedy: {done.stderr!r}")
    return _refused(done.returncode, [line.partition(": ")[2] for line in lines], places, REFUSED)


def _refused(status: int, lines: list[str], places: Sequence[object], statuses: Sequence[int]) -> Answer:
    """An error is a line of cause with a place, and one of remedy, without the jargon of a program that broke."""
    text = " / ".join(lines)
    if status not in statuses:
        why = f"exit status {status}"
    elif len(lines) != 2 or not all(line.strip() and line.isprintable() for line in lines):
        why = "it is no line of cause and one of remedy"
    elif JARGON.search(text):
        why = "it says what a program that broke says"
    elif not any(str(place) in lines[0] for place in places):
        why = "it names no place"
    else:
        return Answer("well", False)
    return Answer("badly", False, f"{why}: {text}")
