"""Estimated seconds of each stage of a release, based on what the probe timed."""

from __future__ import annotations

import math

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config.texts import TextSource
from taylor_ops.latency.loadings import fewest_loadings
from taylor_ops.preflight.known_source import KnownSource
from taylor_ops.preflight.probe import Orders, Times

# The first candidate comes near the target, and the amount by which it misses leads to the one that meets it.
_MISSED = 1
_PAIRS_TO_MEET = 11
# The number of prompts of a text is not known before it is read. The project's own prompts are of five kinds.
_PROMPTS, _KINDS = 100, 5
_PROMPT_TOKENS = 64
# The stages assemble, leaks, publish and verify each read, copy or hash the bundle once.
_READINGS = 4
# The batch with which the audit compares a rebuilt model, and the rows with which it trains a copy.
_REBUILT_BATCH, _TRAINED_ROWS = 12, 256


def seconds_by_stage(
    config: ReleaseConfig, source: KnownSource, orders: Orders, times: Times, bundle: int
) -> dict[str, float]:
    """Seconds by stage, without the time that `torch.compile` takes to compile.

    Args:
        config: The config of the release.
        source: What is known about its source.
        orders: The orders that the probe found.
        times: The times that the probe took.
        bundle: Expected size of the bundle in bytes.
    """
    latency, exactness, target = config.latency, config.exactness, config.latency.target_slowdown
    prompts = sum(_number_of_prompts(text) for text in exactness.prompts)
    decoded = exactness.new_tokens * -(-prompts // exactness.batch_size) * times.batch_seconds
    text = _PROMPT_TOKENS + exactness.new_tokens
    made = bundle / times.converted_bytes_per_second

    def timed(number: int, slowdown: float, batch_size: int, prompt_tokens: int) -> float:
        """Seconds of `number` pairs and the warm-up, after a prompt that both models read once."""
        decoded = (number + latency.warmup) * latency.new_tokens * times.forward(batch_size)
        return (1 + slowdown) * (times.forward(batch_size * prompt_tokens) + decoded)

    def promised(slowdown: float, least: float = latency.least_seconds) -> float:
        """Seconds until one loading is decided, or the `least` seconds of samples."""
        a_pair = (1 + slowdown) * latency.new_tokens * times.forward(latency.batch_size)
        number = max(_PAIRS_TO_MEET, latency.pairs, math.ceil(least / a_pair))
        return timed(number, slowdown, latency.batch_size, latency.prompt_tokens)

    missed = 0 if latency.columns is not None else _MISSED
    # The first loading that meets the target makes the candidate, the others map it anew.
    loadings = fewest_loadings(latency.tolerance)
    confirmed = made + loadings * promised(target, latency.least_seconds / loadings)
    calibrated = orders.ladder_seconds + missed * (made + promised(target, 0.0)) + confirmed
    shapes = [timed(latency.also_pairs, target, shape.batch_size, shape.prompt_tokens) for shape in latency.also]
    devices = [made + promised(device.target_slowdown) for device in latency.devices]
    attacks = [_attack_seconds(name, config, source, times, made) for name in config.audit.attacks]
    # The original decodes, then both models read what it said.
    attacked = min(prompts, config.audit.prompts)
    compared = config.audit.new_tokens * -(-attacked // _REBUILT_BATCH) * times.forward(_REBUILT_BATCH)
    compared += 2 * times.forward(attacked * (_PROMPT_TOKENS + config.audit.new_tokens)) + promised(1.0, 0.0)
    rebuilt = len({*config.audit.rebuild} & {*config.audit.attacks})
    return {
        "resolve": source.seconds,
        "capture": orders.capture_seconds,
        "calibrate": calibrated,
        "transfer": sum(shapes) + sum(devices),
        "convert": made,
        **({} if config.evidence is None else {"mark": made}),
        "validate": made + decoded + (2 + target) * times.forward(prompts * text),
        "audit": sum(attacks) + rebuilt * compared + 2 * latency.compiled * promised(target),
        "publish, verify": _READINGS * made,
    }


def _number_of_prompts(text: TextSource) -> int:
    by_kind = text.per_kind * _KINDS if text.per_kind else _PROMPTS
    return min(text.limit or _PROMPTS, by_kind)


def _attack_seconds(name: str, config: ReleaseConfig, source: KnownSource, times: Times, made: float) -> float:
    """Seconds of one attack on all layers.

    An attack that trains or solves is estimated by its arithmetic, any other one as one pass over the terms. A token
    through the model costs about three products of a layer's F neurons with its H outputs.
    """
    samples, original = config.audit.samples, source.original
    hidden = int(original.config.hidden_size)
    neurons = original.down_values(original.mlps[0]) / hidden
    if name in ("distillation", "warm_distillation"):
        return made + times.forward(config.audit.steps * _TRAINED_ROWS + samples)
    if name in ("fine_tuning", "lora"):
        # A backward pass costs twice as much as a forward pass.
        return made + 3 * times.forward(config.audit.tuning_steps * _TRAINED_ROWS)
    if name == "least_squares":
        # In float64: the features, their products with one another, and the eigenvectors of these products.
        solved = (samples * neurons + 9 * neurons**2) / (3 * hidden)
        return made + 2 * times.forward(samples + int(solved))
    return made
