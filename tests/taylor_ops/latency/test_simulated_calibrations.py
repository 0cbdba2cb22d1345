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
    """Another user of a machine who comes for some seconds in a few minutes, and slows one model down more."""

    def __init__(self, chance: random.Random) -> None:
        self._chance, self._here = chance, False
        both, more = chance.uniform(1.05, 1.5), chance.uniform(1.0, 1.03)
        self._slower = chance.choice([(both * more, both), (both, both * more)])

    def slower(self, seconds: float) -> tuple[float, float]:
        """How many times as long original and bundle take in the next pair, which lasts so many seconds."""
        stays, comes = math.exp(-seconds / 8), 1 - math.exp(-seconds / 150)
        self._here = self._chance.random() < (stays if self._here else comes)
        return self._slower if self._here else (1.0, 1.0)


class Mood:
    """What slows one model down more than the other for half a second to eight seconds at a time."""

    def __init__(self, chance: random.Random) -> None:
        self._chance, self._lasts, self._size = chance, 10 ** chance.uniform(-0.3, 0.9), chance.uniform(0, 0.02)
        self._now = chance.gauss(0, self._size)

    def after(self, seconds: float) -> float:
        """The logarithm of the ratio that it adds, so many seconds later (a process of Ornstein and Uhlenbeck)."""
        left = math.exp(-seconds / self._lasts)
        self._now = self._now * left + self._chance.gauss(0, self._size * math.sqrt(1 - left**2))
        return self._now


class Simulated(Machine):
    """A machine with random true costs, on which samples are noisy, drift, and are now and then far too long.

    That happens to the bundle alone, which takes longer. A neighbour comes and goes, what samples share lasts for
    seconds, and each loading of the models is a little slower or faster than another.
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
        self.tolerance = chance.choice([0.03, 0.05, 0.1])
        self.guess = line(slope * chance.uniform(0.6, 1.6))
        self.noise, self.drift = 10 ** chance.uniform(-2.6, -1.1), chance.uniform(-0.3, 0.3) / 200
        self.outliers = chance.choice([0.0, 0.02, 0.1])
        self.chance, self.seconds, self.lasts = chance, 0.0, 10 ** chance.uniform(-1, 0.3)
        self.neighbour, self.mood, self.apart = Neighbour(chance), Mood(chance), chance.uniform(0, 0.015)

    def __call__(self, plan: Plan, anew: bool = False) -> Sample:
        if not anew:
            self.asked.append(plan)
        loading = self.chance.gauss(0, self.apart)

        def pair() -> tuple[float, float]:
            self.seconds += self.lasts
            original, bundle = self.neighbour.slower(self.lasts)
            late = self.chance.uniform(1.5, 4) if self.chance.random() < self.outliers else 1.0
            noise = self.chance.gauss(0, self.noise) + self.mood.after(self.lasts) + loading
            slowdown, drifted = self.slowdown(plan), math.exp(self.drift * self.seconds)
            seconds = drifted * self.lasts / (1 + slowdown)
            return seconds * original, seconds * bundle * slowdown * math.exp(noise) * late

        return pair


def test_of_a_thousand_calibrations_on_a_simulated_machine_none_succeeds_falsely() -> None:
    ended: dict[str, int] = {"met": 0, "late": 0, "noisy": 0, "false": 0, "other": 0}
    for seed in range(1000, 2000):
        machine = Simulated(seed)
        try:
            plan, trials = find(machine.target, machine, machine.guess, tolerance=machine.tolerance, min_seconds=None)
        except ReleaseError as refused:
            ended["noisy" if isinstance(refused, WorkFailed) and "too noisy" in refused.cause else "other"] += 1
        else:
            met = abs(machine.slowdown(plan) / machine.target - 1) <= machine.tolerance
            ended[("met" if len(trials) <= 4 else "late") if met else "false"] += 1
            assert len(trials) <= Latency().max_trials
    assert ended["false"] == 0, ended
    assert ended["other"] == 0, ended
    assert ended["met"] + ended["late"] >= 980, ended
    assert ended["met"] >= 940, ended


def test_the_one_of_the_first_4000_that_succeeds_falsely_is_hardly_beyond_the_band() -> None:
    machine = Simulated(569)
    plan, _ = find(machine.target, machine, machine.guess, tolerance=machine.tolerance, min_seconds=None)
    beyond = abs(machine.slowdown(plan) / machine.target - 1) - machine.tolerance
    assert 0 < beyond < 0.0014


def test_a_machine_too_noisy_to_tell_is_named_as_such_with_the_remedy() -> None:
    machine = Simulated(0)
    machine.noise = 0.8
    with pytest.raises(WorkFailed, match="too noisy to calibrate: after 106 pairs") as caught:
        find(machine.target, machine, machine.guess)
    assert "latency.max_pairs" in caught.value.remedy
