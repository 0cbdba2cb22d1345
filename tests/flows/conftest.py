"""A tiny release that runs through the real flow on a real, temporary Prefect server; only the clock is simulated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.release import release
from taylor_ops.exactness.greedy import GREEDY
from taylor_ops.latency import timing
from taylor_ops.progress import Progress
from taylor_ops.verification import consumer, verify
from tests.support.clocks import of_each
from tests.support.prefect_database import temporary_server
from tests.support.tiny_models import save_tiny_model


@of_each
def decode_seconds(model: Any, _behind: timing.Behind, new_tokens: int) -> float:
    """Stands in for the clock: a decode step takes as long as reading the model's bytes at 1 GB/s would."""
    return new_tokens * float(sum(p.numel() * p.element_size() for p in model.parameters())) / 1e9


def write_tiny_config(path: Path, model: Path) -> Path:
    """Write the config of a small release of the model in a folder."""
    document = {
        "name": "tiny",
        "version": "1.0.0",
        "source": {"kind": "folder", "path": str(model)},
        "calibration": {"tokens": 4096},
        "conversion": {"tolerance": 1e-4},
        "latency": {
            "target_slowdown": 6.0,
            "pairs": 11,
            "min_seconds": 0,
            "disturbance": 1.0,
            "also": [{"batch_size": 2, "prompt_tokens": 8}],
        },
        "exactness": {
            "prompts": [{"name": "project", "builtin": "held_out", "limit": 8}],
            "new_tokens": 12,
            "running_tokens": 128,
        },
        "audit": {"prompts": 4, "new_tokens": 8},
        "card": {"license": "mit"},
        "publish": {"repo_id": "org/tiny"},
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def prefect_server(prefect_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with temporary_server(prefect_database, tmp_path_factory.mktemp("prefect-server")):
        yield


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("original"))


class InThisProcess:
    """Says the tokens of bundles here."""

    def continuations_of(
        self, bundle: Path, prompts: Sequence[Sequence[int]], new_tokens: int, _progress: Progress
    ) -> list[list[int]]:
        """What stands in for a process of its own."""
        return consumer.continued(str(bundle), [list(prompt) for prompt in prompts], new_tokens, GREEDY)


def in_this_process(_own: bool = True) -> AbstractContextManager[InThisProcess]:
    """What stands in for `clean_process`."""
    return nullcontext(InThisProcess())


@pytest.fixture
def simulated_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """`decode_seconds` in place of the clock."""
    monkeypatch.setattr(timing, "decode_seconds", decode_seconds)


@pytest.fixture
def consumer_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles say their tokens here, in place of a process of their own: to start one takes longer than a release."""
    monkeypatch.setattr(verify, "clean_process", in_this_process)


@pytest.fixture(scope="session")
def tiny_release(prefect_server: None, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifacts folder of one release of the tiny config, which nobody writes to.

    Tests of what a later run does begin with copies: a release of its own for each would prove the same again.
    """
    place = tmp_path_factory.mktemp("tiny-release")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "decode_seconds", decode_seconds)
        patch.setattr(verify, "clean_process", in_this_process)
        release(str(write_tiny_config(place / "tiny.yaml", tiny_llama)), artifacts=str(place / "artifacts"))
    return place / "artifacts"


@pytest.fixture
def tiny_config(tmp_path: Path, tiny_llama: Path) -> Path:
    return write_tiny_config(tmp_path / "tiny.yaml", tiny_llama)
