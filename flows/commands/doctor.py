"""The command `doctor`: what a release needs, and whether it is here."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flows.commands.options import ARTIFACTS, Artifacts, AsJson, quiet_tools

if TYPE_CHECKING:
    from taylor_ops.preflight.probed import Probe, Probed

_SECONDS = 10.0
# The first import after an installation reads gigabytes.
_SECONDS_OF_TORCH = 60.0


def doctor(artifacts: Artifacts = ARTIFACTS, as_json: AsJson = False) -> None:
    """Look for what a release needs: one line each, with a remedy. Exits with 1 if something needed is lacking."""
    quiet_tools()
    from taylor_ops.preflight.probed import probed

    found: list[Probed] = []
    for what, (probe, seconds) in probes(artifacts).items():
        found.append(probed(what, probe, seconds))
        if not as_json:
            typer.echo(line(found[-1]))
    if as_json:
        typer.echo(json.dumps([one.plain() for one in found], indent=2))
    if any(one.state == "lacking" for one in found):
        raise typer.Exit(1)


def probes(artifacts: Path) -> dict[str, tuple[Probe, float]]:
    """What is looked at, in this order, each with the seconds that it may take."""
    from flows.server import probes as of_server
    from taylor_ops.preflight import this_machine

    return {
        "Python": (this_machine.python, _SECONDS),
        "torch": (this_machine.torch, _SECONDS_OF_TORCH),
        "disk": (partial(this_machine.disk, artifacts), _SECONDS),
        "cores": (this_machine.cores, _SECONDS),
        "compiler": (this_machine.compiler, _SECONDS),
        "Hub": (this_machine.hub, _SECONDS),
        "token": (this_machine.token, _SECONDS),
        "server": (of_server.server, _SECONDS),
        "pool": (of_server.pool, _SECONDS),
        "worker": (of_server.worker, _SECONDS),
    }


def line(found: Probed) -> str:
    """One line for one thing."""
    remedy = f"; {found.remedy}" if found.remedy else ""
    return f"{found.state:<9}{found.what:<10}{found.found}{remedy}"
