"""About how long each stage of a release takes, going by what the probe timed."""

from __future__ import annotations

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.preflight.known_source import KnownSource
from taylor_ops.preflight.probe import Orders, Times

# The first guess comes near, and what it misses by leads to the one that meets the target.
_MISSED = 1
_PAIRS_TO_MEET = 11
# Each is read, copied or hashed once: assemble, leaks, publish and verify.
_READINGS = 4
# As the audit compares a rebuilt model, and trains a copy.
_REBUILT_BATCH, _TRAINED_ROWS = 12, 256


def seconds_by_stage(
    config: ReleaseConfig, here: KnownSource, orders: Orders, times: Times, bundle: int
) -> dict[str, float]:
    """Seconds by stage. bundle: bytes that it will have. What `torch.compile` takes to compile is left out."""
    latency, exactness, target = config.latency, config.exactness, config.latency.target_slowdown
    prompts = sum(text.limit or 100 for text in exactness.prompts)
    steps = exactness.new_tokens * -(-prompts // exactness.batch_size)
    made = bundle / times.converted_bytes_per_second

    def timed(number: int, slowdown: float, batch_size: int, prompt_tokens: int) -> float:
        """So many pairs and the warm-up, behind a prompt that both models read once."""
        decoded = (number + latency.warmup) * latency.new_tokens * times.forward(batch_size)
        return (1 + slowdown) * (times.forward(batch_size * prompt_tokens) + decoded)

    def promised(slowdown: float, number: int = max(_PAIRS_TO_MEET, latency.pairs)) -> float:
        return timed(number, slowdown, latency.batch_size, latency.prompt_tokens)

    missed = 0 if latency.columns is not None else _MISSED
    calibrated = orders.ladder_seconds + missed * (made + promised(target, latency.pairs)) + made + promised(target)
    shapes = [timed(latency.also_pairs, target, at.batch_size, at.prompt_tokens) for at in latency.also]
    devices = [made + promised(there.target_slowdown) for there in latency.devices]
    attacks = [_attack_seconds(name, config, here, times, made) for name in config.audit.attacks]
    batches = -(-min(prompts, config.audit.prompts) // _REBUILT_BATCH)
    compared = 2 * batches * config.audit.new_tokens * times.forward(_REBUILT_BATCH) + promised(1.0)
    rebuilt = len({*config.audit.rebuild} & {*config.audit.attacks})
    return {
        "resolve": here.seconds,
        "capture": orders.capture_seconds,
        "calibrate": calibrated,
        "transfer": (made if shapes else 0.0) + sum(shapes) + sum(devices),
        "convert": made,
        **({} if config.evidence is None else {"mark": made}),
        "validate": made + steps * times.batch_seconds * (2 + target),
        "audit": sum(attacks) + rebuilt * compared + 2 * latency.compiled * promised(target),
        "publish, verify": _READINGS * made,
    }


def _attack_seconds(name: str, config: ReleaseConfig, here: KnownSource, times: Times, made: float) -> float:
    """Of one attack on all layers: one that trains or solves by its arithmetic, any other as one pass over the terms.

    A token through the model is about three products of a layer's F neurons with its H outputs.
    """
    samples, original = config.audit.samples, here.original
    hidden = int(original.config.hidden_size)
    neurons = original.down_values(original.mlps[0]) / hidden
    if name in ("distillation", "warm_distillation"):
        return made + times.forward(config.audit.steps * _TRAINED_ROWS + samples)
    if name in ("fine_tuning", "lora"):
        # Forwards, and backwards at twice their price.
        return made + 3 * times.forward(config.audit.tuning_steps * _TRAINED_ROWS)
    if name == "least_squares":
        # In float64: features, their products with one another, and the eigenvectors of those.
        solved = (samples * neurons + 9 * neurons**2) / (3 * hidden)
        return made + 2 * times.forward(samples + int(solved))
    return made
