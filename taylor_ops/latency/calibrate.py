"""Measure the slowdown of decoding and calibrate it.

Measured as a paired ratio: behind the same prompt original and bundle decode the same forced number of tokens, one of
each in turn, A B A B, after a warm-up; the slowdown is the median of the ratios with a bootstrap interval. Turns of one
token, because other users of a machine slow it down for seconds at a time: what is timed within milliseconds meets
the same machine. Weights larger than the caches are read anew at every step in either order.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from taylor_ops.config.latency import Latency
from taylor_ops.conversion.terms import Subject
from taylor_ops.errors import BadInput
from taylor_ops.latency.candidates import Candidates, layers_that_fit
from taylor_ops.latency.column_cost import cost_of_a_column
from taylor_ops.latency.judging import Sample
from taylor_ops.latency.out_of_reach import out_of_reach, remedy_out_of_reach
from taylor_ops.latency.record import LatencyRecord
from taylor_ops.latency.search import search
from taylor_ops.machine.devices import DTYPES, device_description, room_for_weights
from taylor_ops.progress import Progress
from taylor_ops.series.plan import Plan

_PREDICTION_OFF = 2
# What a bundle may cost beside its bytes, over a decode step of the original: launching its kernels, on a fast GPU.
MOST_FIXED = 3


def calibrate(
    subject: Subject,
    settings: Latency,
    device: torch.device,
    seed: int,
    progress: Progress,
    scratch: Path | None = None,
) -> LatencyRecord:
    """Choose the plan whose measured slowdown meets the target; nothing stays written.

    scratch: folder on a disk that holds a bundle, and of nobody else meanwhile: what a killed process left of a
    candidate there is removed. That of the system for temporary files where none is named.

    Raises `BadInput` when the target cannot be reached at the tolerance that was asked for, `WorkFailed` where the
    machine is too noisy to tell.
    """
    source, conversion, expansions = subject.original, subject.conversion, subject.expansions()
    ladder = _plans(expansions.ladder(), settings.columns)
    dtype = DTYPES[conversion.dtype]
    per_column = cost_of_a_column(source, dtype, device)

    def predict(plan: Plan) -> float:
        return 1 + per_column * (plan.columns - plan.neurons)

    reachable = predict(ladder[0]), predict(ladder[-1])
    # The search would begin with the dearest plan, which may take many gigabytes.
    if settings.columns is None and settings.target_slowdown > most_expected(reachable[1]) + MOST_FIXED:
        raise out_of_reach(settings, reachable, conversion, source.activation, by_bytes=True)
    # Chosen once: slowdowns of different parts of a model lie on no common line.
    roomy = _dearest_expected(ladder, predict, settings.target_slowdown)
    room = room_for_weights(device)
    measured = layers_that_fit(source, roomy, dtype, room)
    candidates = Candidates(source, expansions, conversion.dtype, device, measured, seed, scratch)

    def trial(plan: Plan) -> Sample:
        if plan.columns > roomy.columns and layers_that_fit(source, plan, dtype, room) < measured:
            raise BadInput(
                f"memory holds {measured} decoder layers of original and bundle with up to {roomy.columns:,} columns; "
                f"slowdown {settings.target_slowdown:g} needs about {plan.columns:,}",
                "end other programs, calibrate where there is more memory, or lower `latency.target_slowdown`",
            )
        candidates.take(plan)
        return candidates.sample(settings)

    remedy = remedy_out_of_reach(conversion, source.activation)
    plan, trials = search(ladder, predict, trial, settings, seed, progress, remedy)
    return LatencyRecord(
        plan=plan,
        target=settings.target_slowdown,
        tolerance=settings.tolerance,
        reachable=reachable,
        device=device_description(device),
        threads=torch.get_num_threads(),
        batch_size=settings.batch_size,
        prompt_tokens=settings.prompt_tokens,
        new_tokens=settings.new_tokens,
        layers=int(source.config.num_hidden_layers),
        layers_measured=measured,
        trials=tuple(trials),
        disturbed=candidates.disturbed,
    )


def most_expected(slowdown: float) -> float:
    """A slowdown as far above `slowdown` as predictions may be off.

    Of a target: the predicted one up to which there must be room for candidates, as columns may cost less than that.
    """
    return 1 + _PREDICTION_OFF * (slowdown - 1)


def _dearest_expected(ladder: list[Plan], predict: Callable[[Plan], float], target: float) -> Plan:
    """The dearest plan of the ladder for which there must be room."""
    wanted = (plan for plan in ladder if predict(plan) <= most_expected(target))
    return max(wanted, key=lambda plan: plan.columns, default=ladder[0])


def _plans(ladder: list[Plan], columns: int | None) -> list[Plan]:
    """The plans to choose from: all of the ladder, or the one that the config names by its columns."""
    if columns is None:
        return ladder
    chosen = [plan for plan in ladder if plan.columns == columns]
    if not chosen:
        near = min(ladder, key=lambda plan: abs(plan.columns - columns)).columns
        raise BadInput(
            f"`latency.columns` {columns:,}: no plan has so many; the nearest has {near:,}, and all have between "
            f"{ladder[0].columns:,} and {ladder[-1].columns:,}",
            "take the number from `coverage.columns` of the release record of the same inputs, or leave it out",
        )
    return chosen
