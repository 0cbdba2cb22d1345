"""Time the chosen plan where its target was not set: at other batch sizes and prompt lengths, on other devices."""

from __future__ import annotations

from pathlib import Path

import torch

from taylor_ops.config.latency import DeviceTarget, Latency, Shape
from taylor_ops.conversion.terms import Subject
from taylor_ops.errors import GateRejected, WorkFailed
from taylor_ops.latency.candidates import Candidates, layers_that_fit
from taylor_ops.latency.judging import judged_pairs, slowdown_of
from taylor_ops.latency.record import DeviceSlowdown, LatencyRecord, ShapeSlowdown, Transfer
from taylor_ops.machine.devices import DTYPES, device_description, device_named, room_for_weights
from taylor_ops.machine.threads import threads_restored, use_threads
from taylor_ops.progress import Progress


def require_devices(settings: Latency) -> None:
    """`BadInput` where a device that has a target of its own is not here."""
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
) -> Transfer:
    """Time the plan of `latency` at other shapes on the device on which it was chosen, then on other devices.

    scratch: as in `calibrate`. What is found is not judged here: see `require_targets_met`. Raises `WorkFailed` where a
    device is too noisy to tell whether it meets its target, `BadInput` where one is not here.
    """
    require_devices(settings)
    source, conversion, expansions = subject.original, subject.conversion, subject.expansions()
    steps = len(settings.also) + len(settings.devices)

    def candidates_on(there: torch.device, most: int) -> Candidates:
        fit = layers_that_fit(source, latency.plan, DTYPES[conversion.dtype], room_for_weights(there))
        found = Candidates(source, expansions, conversion.dtype, there, min(fit, most), seed, scratch)
        found.take(latency.plan)
        return found

    shapes: list[ShapeSlowdown] = []
    if settings.also:
        # As many layers as the target was met with: one figure on the card says how many.
        candidates = candidates_on(device, latency.layers_measured)
        for shape in settings.also:
            shapes.append(_at_shape(candidates, settings, shape, seed))
            progress(len(shapes), steps)
        del candidates
    devices: list[DeviceSlowdown] = []
    for target in settings.devices:
        with threads_restored():
            if target.threads is not None:
                use_threads(target.threads)
            there = device_named(target.device)
            candidates = candidates_on(there, latency.layers)
            devices.append(_on_device(candidates, settings, target, device_description(there), seed))
            del candidates
        progress(len(shapes) + len(devices), steps)
    return Transfer(shapes=tuple(shapes), devices=tuple(devices))


def require_targets_met(found: Transfer) -> None:
    """Raises `GateRejected` with the first device on which the slowdown is not surely within its tolerance."""
    for there in found.devices:
        if not there.met:
            raise GateRejected(
                f"on {there.device} the slowdown is {_worded(there.slowdown, there.ci95)}, not surely "
                f"{there.target:g} within {there.tolerance:.0%}",
                "set that entry of `latency.devices` to what the plan gives there, widen its tolerance, or move "
                "`latency.target_slowdown`",
            )


def _at_shape(candidates: Candidates, settings: Latency, shape: Shape, seed: int) -> ShapeSlowdown:
    at = {"batch_size": shape.batch_size, "prompt_tokens": shape.prompt_tokens}
    # No promise rests on these: a busy machine is no reason to end a release that has met its target.
    there = settings.model_copy(update={**at, "disturbance": 1.0})
    sample = candidates.sample(there)
    pairs = [sample() for _ in range(settings.also_pairs)]
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


def _on_device(candidates: Candidates, settings: Latency, target: DeviceTarget, name: str, seed: int) -> DeviceSlowdown:
    """Raises `WorkFailed` where it cannot be told whether the slowdown meets the target there."""
    there = settings.model_copy(update={"target_slowdown": target.target_slowdown, "tolerance": target.tolerance})
    original, bundle, verdict = judged_pairs(candidates.sample(there), there)
    slowdown, ci95 = slowdown_of(original, bundle, seed)
    if verdict == "noisy":
        raise WorkFailed(
            f"{name} is too noisy to tell whether the slowdown there is {target.target_slowdown:g} within "
            f"{target.tolerance:.0%}: after {len(original)} pairs it is {_worded(slowdown, ci95)}",
            "end what else runs on this machine, raise `latency.max_pairs` or `latency.new_tokens`",
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


def _worded(slowdown: float, ci95: tuple[float, float]) -> str:
    return f"{slowdown:.2f} (95 % interval {ci95[0]:.2f} to {ci95[1]:.2f})"
