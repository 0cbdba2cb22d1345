"""Run a bundle in a clean process: one that sees only torch, transformers and what they require."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from taylor_ops.errors import GateRejected
from taylor_ops.exactness.greedy import GREEDY
from taylor_ops.progress import Progress, silent
from taylor_ops.verification import consumer

_ROOTS = ("torch", "transformers")
_INHERITED = ("PATH", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
_LOG = logging.getLogger(__name__)
_STEP = re.compile(r'\{"step": (\d{1,9})\}')


class CleanProcess:
    """A clean process that waits for a bundle. Until it gets one it imports torch and transformers, and runs no code
    of any bundle.

    Args:
        process: The process.
        errors: File that receives its error output.
        own: Whether this project has just made the bundle on this machine.
    """

    def __init__(self, process: subprocess.Popen[str], errors: Path, own: bool = True) -> None:
        self._process, self._errors, self._own = process, errors, own

    def continuations_of(
        self, bundle: Path, prompts: Sequence[Sequence[int]], new_tokens: int, progress: Progress = silent
    ) -> list[list[int]]:
        """Greedy continuations of token prompts by the bundle, loaded as any consumer loads it. A process answers once.

        Args:
            bundle: Folder of the bundle. Its code runs now.
            prompts: The prompts.
            new_tokens: Number of tokens that continue each prompt.
            progress: Receives the number of tokens of each continuation so far and of all.

        Raises:
            GateRejected: The process failed. The message ends with the last line of its error output.
        """
        tokens: list[list[int]] = self.answer(bundle, prompts, new_tokens, progress)["tokens"]
        return tokens

    def answer(
        self, bundle: Path, prompts: Sequence[Sequence[int]], new_tokens: int, progress: Progress
    ) -> dict[str, Any]:
        """The whole answer of the process, as `consumer.py` describes it. Takes and raises what the above does."""
        request = {
            "bundle": str(bundle.absolute()),
            "prompts": [list(prompt) for prompt in prompts],
            "new_tokens": new_tokens,
            "settings": GREEDY,
        }
        process, last = self._process, ""
        assert process.stdin is not None
        assert process.stdout is not None
        # A process that has failed early reads nothing. Its error output says why it failed.
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(json.dumps(request) + "\n")
        for line in process.stdout:
            step = _STEP.fullmatch(line.strip())
            if step is not None:
                progress(int(step[1]), new_tokens)
            last = line
        answer = _object(last)
        if process.wait() != 0 or "tokens" not in answer:
            lines = self._errors.read_text(encoding="utf-8", errors="replace").splitlines()
            reason = next((line for line in reversed(lines) if line.strip()), "no output")
            raise GateRejected(
                f"{bundle} does not run in a process with only torch and transformers: {reason.strip()}",
                "this is a defect of the bundle's modeling code or of its files; do not hand it out",
            )
        if not self._own:
            say_if_on_the_network(answer.get("without_network") is True)
        return answer


def say_if_on_the_network(cut_off: bool) -> None:
    """Warn that the code of a bundle of others could reach the network, if the machine did not cut its process off."""
    if not cut_off:
        _LOG.warning("this machine cuts no process off from the network: the code of the bundle could reach it")


def bare_environment(home: str) -> dict[str, str]:
    """The environment of a process that runs the code of a bundle: no token, an empty home, no access to the Hub."""
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return environment | {"HOME": home, "HF_HOME": home, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def _object(text: str) -> dict[str, Any]:
    """The object of a line of JSON. An empty one if the line is anything else."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


@contextmanager
def clean_process(own: bool = True) -> Iterator[CleanProcess]:
    """Start a clean process. It is ended with the block.

    It has an empty home, no token, no access to the Hub, and where Linux allows it no network. Its path holds the
    standard library, torch, transformers and the packages that they require. If the bundle is not `own`, a network that
    the machine did not cut off is told in the log.
    """
    with tempfile.TemporaryDirectory(prefix="taylor-consumer-") as scratch:
        packages, errors = Path(scratch) / "packages", Path(scratch) / "errors"
        link_packages(packages)
        with (
            errors.open("w", encoding="utf-8") as stderr,
            subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", consumer.__file__, str(packages)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=bare_environment(scratch),
                cwd=scratch,
            ) as process,
        ):
            try:
                yield CleanProcess(process, errors, own)
            finally:
                process.kill()


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
