"""Tiny models that are captured, planned and converted once for all tests of this folder; single MLPs; an empty Hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from taylor_ops.capture.capture import capture
from taylor_ops.config.conversion import Conversion
from taylor_ops.config.texts import Calibration
from taylor_ops.conversion.convert import convert
from taylor_ops.conversion.record import ConvertedModel
from taylor_ops.conversion.terms import Subject
from taylor_ops.latency import timing
from taylor_ops.model.original import Original
from taylor_ops.preflight import probe
from taylor_ops.series.ladder import Expansions
from taylor_ops.series.plan import Plan
from tests.support.clocks import of_each
from tests.support.loopback_hub.app import Hub
from tests.support.loopback_hub.bench import client_on_loopback
from tests.support.loopback_hub.store import Store
from tests.support.mlp_example import CASES, Case
from tests.support.tiny_models import save_tiny_model

CPU = torch.device("cpu")
CALIBRATION = Calibration(tokens=1024, sequence_tokens=128)


@dataclass(frozen=True)
class Sample:
    """A tiny model on its way through a release: the original, its captured ranges, a plan, the converted folder."""

    original: Path
    ranges: Path
    conversion: Conversion
    plan: Plan
    record: ConvertedModel
    converted: Path

    @property
    def subject(self) -> Subject:
        """What the plan was taken from."""
        return Subject(Original(self.original), self.ranges, self.conversion)

    @property
    def expansions(self) -> Expansions:
        """The expansions from which the plan was taken."""
        return self.subject.expansions()

    def again(self, folder: Path, **changes: Any) -> Sample:
        """The same original converted into `folder` under a conversion with `changes`, by its cheapest plan."""
        return converted(self.original, self.ranges, self.conversion.model_copy(update=changes), folder)


def silent(_done: int, _total: int) -> None:
    """Progress that nobody watches."""


def captured(original: Path, folder: Path) -> Path:
    """The file with the ranges of a model over a part of the shipped calibration text."""
    return folder / capture(original, "float32", CALIBRATION, CPU, folder, silent).file


def converted(original: Path, ranges: Path, conversion: Conversion, folder: Path) -> Sample:
    """Convert by the cheapest plan that keeps what `conversion` asks for."""
    subject = Subject(Original(original), ranges, conversion)
    plan = subject.expansions().ladder()[0]
    return Sample(
        original=original,
        ranges=ranges,
        conversion=conversion,
        plan=plan,
        record=convert(subject, plan, folder, silent),
        converted=folder,
    )


def sample(root: Path, model_type: str, **changes: Any) -> Sample:
    """A tiny model of `model_type`, captured and converted below `root`."""
    original = save_tiny_model(root / f"{model_type}-original", model_type, **changes)
    ranges = captured(original, root / f"{model_type}-ranges")
    conversion = Conversion(tolerance=1e-4, range_margin=0.5)
    return converted(original, ranges, conversion, root / f"{model_type}-converted")


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A tiny gated model."""
    return sample(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="session")
def phi(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A tiny plain model, with biases."""
    return sample(tmp_path_factory.mktemp("phi"), "phi")


@pytest.fixture(params=["llama", "phi"])
def gated_or_plain(request: pytest.FixtureRequest) -> Sample:
    """Each of the two models in turn."""
    chosen: Sample = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[2].basis}-{case[2].tolerance:g}")
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    """An MLP of every kind in turn, with its release."""
    return Case(tmp_path, *request.param)


@pytest.fixture
def silu_case(tmp_path: Path) -> Case:
    """A gated MLP with silu, with its release."""
    return Case(tmp_path, "silu", True, Conversion(tolerance=1e-3))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """The stand-in for the Hub, with the real client pointed at it."""
    with client_on_loopback(tmp_path_factory.mktemp("hub") / "store") as hub:
        yield hub


@pytest.fixture
def hub(server: Hub, tmp_path: Path) -> Hub:
    """The stand-in for the Hub, empty and well."""
    server.store = Store(tmp_path / "store")
    server.faults.clear()
    server.after_each = lambda _kind: None
    server.tokens_at_storage = 0
    return server


def seconds_of_bytes(model: Any, new_tokens: int) -> float:
    """What so many decode steps take where all time goes into reading the layers, at 1 GB/s."""
    size: int = sum(p.numel() * p.element_size() for p in model.model.layers.parameters())
    return new_tokens * size / 1e9


@pytest.fixture
def clock_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for the clock: `seconds_of_bytes`, and no time for the head."""

    def by_bytes() -> Any:
        return of_each(lambda model, _behind, tokens: seconds_of_bytes(model, tokens))

    monkeypatch.setattr(timing, "decode_seconds", by_bytes())
    monkeypatch.setattr(probe, "decode_seconds", by_bytes())
    monkeypatch.setattr(timing._Clock, "seconds", lambda _self: 0.0)
