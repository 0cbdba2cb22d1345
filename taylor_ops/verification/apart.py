"""Measure a bundle of others again in a process of its own, which has no token, an empty home and no network."""

from __future__ import annotations

import json
import site
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from taylor_ops.errors import BadInput, GateRejected, ReleaseError, WorkFailed
from taylor_ops.masking import printable
from taylor_ops.progress import silent
from taylor_ops.verification.clean_process import bare_environment, say_if_on_the_network
from taylor_ops.verification.consumer import without_network
from taylor_ops.verification.record import Remeasured

_PROJECT = Path(__file__).absolute().parents[2]
_ERRORS = {kind.__name__: kind for kind in (BadInput, GateRejected, WorkFailed)}


def remeasured_apart(bundle: Path, original: Path, device: str, max_pairs: int | None) -> Remeasured:
    """What `remeasure` finds, in a process of its own. The hashes and the code of the bundle must be checked before.

    Args:
        bundle: Folder of the bundle. Its code runs in the process.
        original: Folder of the original that it was made of.
        device: Name of the device to measure on.
        max_pairs: The most pairs to take. None: the default of `latency.max_pairs`.

    Raises:
        BadInput, WorkFailed: As `remeasure` raises them, or the process ended without an answer.
    """
    request = {
        "bundle": str(bundle.absolute()),
        "original": str(original.absolute()),
        "device": device,
        "max_pairs": max_pairs,
    }
    with tempfile.TemporaryDirectory(prefix="taylor-apart-") as home:
        done = subprocess.run(
            [sys.executable, "-B", "-m", __name__],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            errors="replace",
            env=bare_environment(home) | {"PYTHONPATH": str(_PROJECT), "PYTHONUSERBASE": site.getuserbase()},
            cwd=home,
            check=False,
        )
    return _found(done, bundle)


def _found(done: subprocess.CompletedProcess[str], bundle: Path) -> Remeasured:
    answer: Any = None
    with suppress(ValueError, IndexError):
        answer = json.loads(done.stdout.splitlines()[-1])
    with suppress(TypeError, KeyError, ValueError):
        if "cause" in answer:
            raise _ERRORS[answer["kind"]](str(answer["cause"]), str(answer["remedy"]))
        record = Remeasured.model_validate_json(json.dumps(answer["record"]))
        say_if_on_the_network(answer["without_network"] is True)
        words = {name: printable(getattr(record, name)) for name in ("device", "stated_for")}
        return record.model_copy(update=words)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    raise WorkFailed(
        f"{bundle} was not measured: its process ended with status {done.returncode}: {(lines or ['no output'])[-1]}",
        "run again with more memory free; if the error remains, the bundle's modeling code has a defect",
    )


def main() -> None:
    """Answer the request on standard input with one line of JSON: the record, or the error for a person."""
    alone = without_network()
    request: dict[str, Any] = json.loads(sys.stdin.readline())
    # Only now: threads that these start could not leave the network.
    from taylor_ops.machine.devices import device_named
    from taylor_ops.verification.remeasure import remeasure

    try:
        bundle, original = Path(request["bundle"]), Path(request["original"])
        found = remeasure(bundle, original, device_named(request["device"]), 0, silent, request["max_pairs"])
    except ReleaseError as error:
        print(json.dumps({"kind": type(error).__name__, "cause": error.cause, "remedy": error.remedy}))
        return
    print(json.dumps({"record": found.plain(), "without_network": alone}))


if __name__ == "__main__":
    main()
