"""A thousand calibrations on simulated machines: known slowdowns with noise, drift, outliers and a neighbour."""

from __future__ import annotations

import math
import random

import pytest

from taylor_ops.config.latency import Latency
from taylor_ops.errors import ReleaseError, WorkFailed
from taylor_ops.latency.judging import Sample
from taylor_ops.series.plan import Plan
from tests.support.machine_example import LADDER, NEURONS, Machine, find, line


class Neighbour:
    """Another user of a machine who comes for some pairs and goes for many, and slows one of the models down more."""

    def __init__(self, chance: random.Random) -> None:
        self._chance, self._here = chance, False
        both, more = chance.uniform(1.05, 1.5), chance.uniform(1.0, 1.03)
        self._slower = chance.choice([(both * more, both), (both, both * more)])

    def slower(self) -> tuple[float, float]:
        """How many times as long original and bundle take in the next pair."""
        self._here = self._chance.random() < (0.65 if self._here else 0.02)
        return self._slower if self._here else (1.0, 1.0)


class Simulated(Machine):
    """A machine with random true costs, on which samples are noisy, drift, and are now and then far too long.

    That happens to the bundle alone, which takes longer; a neighbour comes and goes.
    """

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        slope, overhead, bend = chance.uniform(3e-4, 3e-3), chance.uniform(-0.25, 1.0), chance.uniform(-0.1, 0.1)
        most = LADDER[-1].columns - NEURONS

        def true(rung: Plan) -> float:
            extra = rung.columns - rung.neurons
            return 1 + overhead + slope * extra * (1 + bend * extra / most)

        super().__init__(true)
        self.target = chance.uniform(max(1.1, true(LADDER[8])), true(LADDER[-9]))
        self.guess = line(slope * chance.uniform(0.6, 1.6))
        self.noise, self.drift = 10 ** chance.uniform(-3, -1.5), chance.uniform(-0.3, 0.3) / 200
        self.outliers = chance.choice([0.0, 0.02, 0.1])
        self.chance, self.samples, self.neighbour = chance, 0, Neighbour(chance)

    def __call__(self, plan: Plan) -> Sample:
        self.asked.append(plan)

        def pair() -> tuple[float, float]:
            original, bundle = self.neighbour.slower()
            late = self.chance.uniform(1.5, 4) if self.chance.random() < self.outliers else 1.0
            return self._seconds(original), self._seconds(bundle * late * self.slowdown(plan))

        return pair

    def _seconds(self, true: float) -> float:
        self.samples += 1
        return true * math.exp(self.chance.gauss(0, self.noise) + self.drift * self.samples)


def test_of_a_thousand_calibrations_on_a_simulated_machine_none_succeeds_falsely() -> None:
    ended: dict[str, int] = {"met": 0, "late": 0, "noisy": 0, "false": 0, "other": 0}
    for seed in range(1000):
        machine = Simulated(seed)
        try:
            plan, trials = find(machine.target, machine, machine.guess)
        except ReleaseError as refused:
            ended["noisy" if isinstance(refused, WorkFailed) and "too noisy" in refused.cause else "other"] += 1
        else:
            met = abs(machine.slowdown(plan) / machine.target - 1) <= Latency().tolerance
            ended[("met" if len(trials) <= 4 else "late") if met else "false"] += 1
            assert len(trials) <= Latency().max_trials
    assert ended["false"] == 0, ended
    assert ended["other"] == 0, ended
    assert ended["met"] >= 980, ended


def test_a_machine_too_noisy_to_tell_is_named_as_such_with_the_remedy() -> None:
    machine = Simulated(0)
    machine.noise = 0.8
    with pytest.raises(WorkFailed, match="too noisy to calibrate: after 60 pairs") as caught:
        find(machine.target, machine, machine.guess)
    assert "latency.max_pairs" in caught.value.remedy
