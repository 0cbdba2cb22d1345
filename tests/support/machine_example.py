"""A machine without a clock, on which a calibration searches: its slowdowns are known."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from taylor_ops.config.latency import Latency
from taylor_ops.latency.judging import Sample
from taylor_ops.latency.record import Trial
from taylor_ops.latency.search import search
from taylor_ops.series.plan import Plan
from tests.taylor_ops.conftest import silent

NEURONS = 100
REMEDY = "what moves the slowdowns of this model"
Slowdown = Callable[[Plan], float]


def plan_of(columns: int) -> Plan:
    return Plan(basis="chebyshev", tolerance=1e-4, least_order=1, columns=columns, neurons=NEURONS)


LADDER = [plan_of(columns) for columns in range(8 * NEURONS, 65 * NEURONS, NEURONS // 2)]


def line(slope: float, overhead: float = 0.0) -> Slowdown:
    """Slowdowns that grow by `slope` with each column above one a neuron."""
    return lambda rung: 1 + overhead + slope * (rung.columns - rung.neurons)


class Machine:
    """Measures without a clock: pairs whose ratio is what `slowdown` says. It remembers what it was asked."""

    def __init__(self, slowdown: Slowdown) -> None:
        self.slowdown = slowdown
        self.asked: list[Plan] = []

    def __call__(self, plan: Plan, anew: bool = False) -> Sample:
        if not anew:
            self.asked.append(plan)
        slowdown, numbers = self.slowdown(plan), itertools.count()

        def pair() -> tuple[float, float]:
            seconds = 0.5 + 0.01 * next(numbers)
            return seconds, seconds * slowdown

        return pair


def find(
    target: float, machine: Machine, guess: Slowdown, ladder: Sequence[Plan] = LADDER, **more: Any
) -> tuple[Plan, list[Trial]]:
    """The search of a calibration to `target` with a first guess; more: other settings of `latency`."""
    settings = Latency(**{"target_slowdown": target, "min_seconds": 0.0} | more)
    return search(ladder, guess, machine, settings, 0, silent, REMEDY)
