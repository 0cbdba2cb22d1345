"""Measure the slowdown of decoding and calibrate it.

A slowdown is measured in pairs. After a warm-up and the same prompt, original and bundle decode the same forced number
of tokens, one token each in turn (A B A B). The slowdown is the median of the paired ratios, with a bootstrap interval.

A plan that meets the target is measured again after both models are loaded anew, several times: where a model lies in
memory differs from loading to loading, and so does its speed. What decides is the interval over all loadings. On a CPU,
every loading gets the weights from the disk, because files that were just written may be read faster.

A turn is one token long because other users of a machine slow it down for seconds at a time. Turns that are
milliseconds apart meet the same machine. Weights larger than the caches are read anew at every step, in either order.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from taylor_ops.config.latency import Latency
from taylor_ops.conversion.terms import Subject
from taylor_ops.errors import BadInput
from taylor_ops.latency.bench import Bench
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
# The most that a bundle may cost beside its bytes, over a decode step of the original. A fast GPU comes near to it by
# launching kernels.
MOST_FIXED = 3


def calibrate(
    subject: Subject,
    settings: Latency,
    device: torch.device,
    seed: int,
    progress: Progress,
    scratch: Path | None = None,
    bench: Bench | None = None,
) -> LatencyRecord:
    """Choose the plan whose slowdown, measured in several loadings, meets the target. Nothing stays written.

    Args:
        subject: The original, the file of its captured ranges, and how it is converted.
        settings: The target slowdown and how it is measured.
        device: Device to measure on.
        seed: Seed of the random choices.
        progress: Receives the number of pairs so far, and how many the running trial is expected to end with.
        scratch: Folder on a disk that has room for a bundle. No other process may use it meanwhile: what a killed
            process left of a candidate there is removed. None: the system's folder for temporary files.
        bench: Receives the models in memory, for `transfer`.

    Raises:
        BadInput: No plan of the config meets the target, or memory does not hold what must be timed.
        WorkFailed: The machine is too noisy to tell.
    """
    source, conversion, expansions = subject.original, subject.conversion, subject.expansions()
    ladder = _plans(expansions.ladder(), settings.columns)
    dtype = DTYPES[conversion.dtype]
    per_column = cost_of_a_column(source, dtype, device)

    def predict(plan: Plan) -> float:
        return 1 + per_column * (plan.columns - plan.neurons)

    reachable = predict(ladder[0]), predict(ladder[-1])
    # Without this check the search would begin with the dearest plan, which may take many gigabytes.
    if settings.columns is None and settings.target_slowdown > most_expected(reachable[1]) + MOST_FIXED:
        raise out_of_reach(settings, reachable, conversion, source.activation, by_bytes=True)
    # The number of layers is chosen once: slowdowns of different parts of a model lie on no common line.
    dearest = _dearest_expected(ladder, predict, settings.target_slowdown)
    room = room_for_weights(device)
    measured = layers_that_fit(source, dearest, dtype, room)
    candidates = Candidates(source, expansions, conversion.dtype, device, measured, seed, scratch)

    def trial(plan: Plan, anew: bool = False) -> Sample:
        if plan.columns > dearest.columns and layers_that_fit(source, plan, dtype, room) < measured:
            raise BadInput(
                f"memory holds {measured} decoder layers of original and bundle with up to {dearest.columns:,} "
                f"columns; slowdown {settings.target_slowdown:g} needs about {plan.columns:,}",
                "end other programs, calibrate where there is more memory, or lower `latency.target_slowdown`",
            )
        if anew:
            candidates.again()
        else:
            candidates.take(plan)
        return candidates.sample(settings)

    remedy = remedy_out_of_reach(conversion, source.activation)
    try:
        plan, trials = search(ladder, predict, trial, settings, seed, progress, remedy)
    finally:
        candidates.forget_files()
    if bench is not None:
        bench.keep(candidates)
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
    """The highest slowdown that may be predicted for a plan which turns out to have `slowdown`.

    Columns may cost less than predicted. Candidates up to this prediction for the target must therefore fit into
    memory.
    """
    return 1 + _PREDICTION_OFF * (slowdown - 1)


def _dearest_expected(ladder: list[Plan], predict: Callable[[Plan], float], target: float) -> Plan:
    """The dearest plan of the ladder that must fit into memory."""
    plans = (plan for plan in ladder if predict(plan) <= most_expected(target))
    return max(plans, key=lambda plan: plan.columns, default=ladder[0])


def _plans(ladder: list[Plan], columns: int | None) -> list[Plan]:
    """The plans to choose from: all plans of the ladder, or the plan that the config names by its columns."""
    if columns is None:
        return ladder
    chosen = [plan for plan in ladder if plan.columns == columns]
    if not chosen:
        nearest = min(ladder, key=lambda plan: abs(plan.columns - columns)).columns
        raise BadInput(
            f"`latency.columns` {columns:,}: no plan has so many; the nearest has {nearest:,}, and all have between "
            f"{ladder[0].columns:,} and {ladder[-1].columns:,}",
            "take the number from `coverage.columns` in the release record of the same inputs, or leave it out",
        )
    return chosen
