"""The commands of the documents for people who operate releases, for the tests that run them as they stand."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

NOT_RUN = {
    "make setup": "installs the packages that the tests run with; continuous integration begins with it",
    "source .venv/bin/activate": "the tests call the programs of the environment that they run in",
    "export PREFECT_API_URL=http://127.0.0.1:4200/api": "the server of the tests has a port of its own",
    "systemctl enable --now taylor-release-worker": "needs systemd, and the rights of root",
    "pip install prefect-docker": "installs a package; Docker itself is not here",
    "prefect worker start --pool containers": "needs Docker, or a cluster",
}
"""Commands that no test can run, and why."""

TEXTS = ("getting-started", "operating")


def lines(text: str) -> list[str]:
    """Every command in the shell blocks of a text in docs/."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / f"{text}.md").read_text("utf-8"), re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def documented(beginning: str) -> str:
    """The one command of the documents that begins so, or that is just this."""
    every = {line for text in TEXTS for line in lines(text)}
    found = {beginning} & every or {line for line in every if line.startswith(beginning)}
    if len(found) != 1:
        raise AssertionError(f"{len(found)} commands of the documents begin with `{beginning}`: {sorted(found)}")
    return found.pop()


def told(beginning: str, run: str) -> str:
    """The command of the documents that begins so, about this run in place of theirs."""
    return documented(beginning).replace("3f0c2f6e-2c7f-4c53-9d0b-1f3f6c1a2b4d", run)
