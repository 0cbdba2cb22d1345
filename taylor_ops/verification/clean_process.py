"""Run a bundle in a clean process: one that sees only torch, transformers and what they require."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from taylor_ops.errors import GateRejected
from taylor_ops.verification import consumer

_ROOTS = ("torch", "transformers")
_INHERITED = ("PATH", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")


def continuations_of(bundle: Path, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
    """Greedy continuations of token prompts by the bundle in a clean process, loaded as any consumer loads it.

    The process has an empty home and no access to the Hub. Its path holds the standard library, torch, transformers and
    the packages that they require.

    Raises:
        GateRejected: The process failed. The message ends with the last line of its error output.
    """
    with tempfile.TemporaryDirectory(prefix="taylor-consumer-") as scratch:
        packages = Path(scratch) / "packages"
        link_packages(packages)
        request = {
            "packages": str(packages),
            "bundle": str(bundle.absolute()),
            "prompts": [list(prompt) for prompt in prompts],
            "new_tokens": new_tokens,
        }
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= {"HOME": scratch, "HF_HOME": scratch, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-B", consumer.__file__],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            env=environment,
            cwd=scratch,
            check=False,
        )
    if done.returncode != 0:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no output")
        raise GateRejected(
            f"{bundle} does not run in a process with only torch and transformers: {reason.strip()}",
            "this is a defect of the bundle's modeling code or of its files; do not hand it out",
        )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    tokens: list[list[int]] = answer["tokens"]
    return tokens


def link_packages(folder: Path) -> None:
    """Fill `folder` with links to torch, transformers and everything that they require, and to nothing else."""
    folder.mkdir(parents=True)
    for name in sorted(_closure()):
        installed = distribution(name)
        tops = {file.parts[0] for file in installed.files or [] if not file.is_absolute() and file.parts[0] != ".."}
        for top in sorted(tops - {"__pycache__"}):
            link, target = folder / top, Path(str(installed.locate_file(top)))
            if target.exists() and not link.exists():
                link.symlink_to(target)


def _closure() -> set[str]:
    """Names of torch, transformers and all installed distributions that they require, without extras."""
    found: set[str] = set()
    waiting = list(_ROOTS)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        try:
            required = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        found.add(name)
        for text in required:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found
