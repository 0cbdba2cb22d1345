"""Time the chosen plan beyond its target: at other batch sizes and prompt lengths, and on other devices."""

from __future__ import annotations

from pathlib import Path

import torch

from taylor_ops.config.latency import DeviceTarget, Latency, Shape
from taylor_ops.conversion.terms import Subject
from taylor_ops.errors import GateRejected, WorkFailed
from taylor_ops.latency.bench import Bench
from taylor_ops.latency.candidates import Candidates, layers_that_fit
from taylor_ops.latency.judging import judged_pairs, slowdown_of
from taylor_ops.latency.record import DeviceSlowdown, LatencyRecord, ShapeSlowdown, Transfer
from taylor_ops.machine.devices import DTYPES, device_description, device_named, room_for_weights
from taylor_ops.machine.threads import threads_restored, use_threads
from taylor_ops.progress import Done, Progress, part_of


def require_devices(settings: Latency) -> None:
    """Raise `BadInput` if this machine lacks a device that has a target of its own."""
    for target in settings.devices:
        device_named(target.device)


def transfer(
    subject: Subject,
    latency: LatencyRecord,
    settings: Latency,
    device: torch.device,
    seed: int,
    progress: Progress,
    scratch: Path | None = None,
    bench: Bench | None = None,
) -> Transfer:
    """Time the plan of `latency` at other shapes on the device on which it was chosen, then on other devices.

    `require_targets_met` judges the result.

    Args:
        subject: The original, the file of its captured ranges, and how it is converted.
        latency: The record of `calibrate`.
        settings: The other shapes and devices, and how the slowdown is measured.
        device: Device on which the plan was chosen.
        seed: Seed of the random choices.
        progress: Receives the number of pairs so far, and the number of all that are expected.
        scratch: As in `calibrate`.
        bench: What `calibrate` may have kept in memory.

    Raises:
        BadInput: This machine lacks a device, or memory does not hold what must be timed.
        WorkFailed: A device is too noisy to tell whether it meets its target.
    """
    require_devices(settings)
    source, conversion, expansions = subject.original, subject.conversion, subject.expansions()
    before = len(settings.also) * settings.also_pairs
    total = before + len(settings.devices) * settings.pairs
    done = Done(progress, total)

    def candidates_on(place: torch.device, most: int) -> Candidates:
        fit = layers_that_fit(source, latency.plan, DTYPES[conversion.dtype], room_for_weights(place))
        loaded = Candidates(source, expansions, conversion.dtype, place, min(fit, most), seed, scratch)
        try:
            loaded.take(latency.plan)
        finally:
            loaded.forget_files()
        return loaded

    shapes: list[ShapeSlowdown] = []
    if settings.also:
        # As many layers as the trials timed, because the card states one number for both.
        kept = bench and bench.handed_over(latency.plan, device, latency.layers_measured)
        candidates = kept or candidates_on(device, latency.layers_measured)
        for shape in settings.also:
            shapes.append(_at_shape(candidates, settings, shape, seed, done))
        del candidates, kept
    devices: list[DeviceSlowdown] = []
    for number, target in enumerate(settings.devices):
        part = part_of(progress, before + number * settings.pairs, settings.pairs, total)
        with threads_restored():
            if target.threads is not None:
                use_threads(target.threads)
            place = device_named(target.device)
            candidates = candidates_on(place, latency.layers)
            devices.append(_on_device(candidates, settings, target, device_description(place), seed, part))
            del candidates
    return Transfer(shapes=tuple(shapes), devices=tuple(devices))


def require_targets_met(found: Transfer) -> None:
    """Raise `GateRejected` with the first device on which the slowdown is not surely within its tolerance."""
    for measured in found.devices:
        if not measured.met:
            raise GateRejected(
                f"on {measured.device} the slowdown is {_words_of(measured.slowdown, measured.ci95)}, not surely "
                f"{measured.target:g} within {measured.tolerance:.0%}",
                "set the target of this entry of `latency.devices` to the measured slowdown, widen its tolerance, or "
                "move `latency.target_slowdown`",
            )


def _at_shape(candidates: Candidates, settings: Latency, shape: Shape, seed: int, done: Done) -> ShapeSlowdown:
    sizes = {"batch_size": shape.batch_size, "prompt_tokens": shape.prompt_tokens}
    # No promise rests on this slowdown: a busy machine is no reason to end a release that has met its target.
    sample = candidates.sample(settings.model_copy(update={**sizes, "disturbance": 1.0}))
    pairs = []
    for _ in range(settings.also_pairs):
        pairs.append(sample())
        done(1)
    original, bundle = zip(*pairs, strict=True)
    slowdown, ci95 = slowdown_of(original, bundle, seed)
    return ShapeSlowdown(
        slowdown=slowdown,
        ci95=ci95,
        seconds_original=original,
        seconds_bundle=bundle,
        batch_size=shape.batch_size,
        prompt_tokens=shape.prompt_tokens,
    )


def _on_device(
    candidates: Candidates, settings: Latency, target: DeviceTarget, name: str, seed: int, progress: Progress
) -> DeviceSlowdown:
    """Raises `WorkFailed` if the device is too noisy to tell whether the slowdown meets the target."""
    own = settings.model_copy(update={"target_slowdown": target.target_slowdown, "tolerance": target.tolerance})
    original, bundle, verdict = judged_pairs(candidates.sample(own), own, progress)
    slowdown, ci95 = slowdown_of(original, bundle, seed)
    if verdict == "noisy":
        raise WorkFailed(
            f"{name} is too noisy to tell whether the slowdown there is {target.target_slowdown:g} within "
            f"{target.tolerance:.0%}: after {len(original)} pairs it is {_words_of(slowdown, ci95)}",
            "end the other programs on this machine, or raise `latency.max_pairs` or `latency.new_tokens`",
        )
    return DeviceSlowdown(
        slowdown=slowdown,
        ci95=ci95,
        seconds_original=tuple(original),
        seconds_bundle=tuple(bundle),
        device=name,
        layers_measured=candidates.layers,
        target=target.target_slowdown,
        tolerance=target.tolerance,
        met=verdict == "met",
    )


def _words_of(slowdown: float, ci95: tuple[float, float]) -> str:
    return f"{slowdown:.2f} (95 % interval {ci95[0]:.2f} to {ci95[1]:.2f})"
