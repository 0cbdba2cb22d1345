"""A quick probe of a local original: orders and times from a little text and a few decode steps, scaled up.

Orders come from the ranges that an earlier run captured. If there are none, a part of the calibration text runs through
all layers of a small model or the first layers of a large one. Ranges grow with the text, so every further doubling of
the text is taken to add as many columns as the last one did. The cost of a bundle comes from timing the same layers of
original and candidate in turn. The cheapest candidate and a dearer one separate the cost of columns from all else.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import log2
from pathlib import Path
from typing import Any

import torch

from taylor_ops.capture.capture import capture
from taylor_ops.config.latency import Latency
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.conversion.in_memory import convert_in_memory
from taylor_ops.conversion.terms import Subject, mlp_tensors
from taylor_ops.errors import BadInput
from taylor_ops.latency.candidates import bytes_side_by_side, layers_that_fit
from taylor_ops.latency.column_cost import LEAST_COST, ORIGINAL, Cost, TimedPlan, cost_of_a_column, costs_of
from taylor_ops.latency.judging import slowdown_of
from taylor_ops.latency.timing import decode_seconds, head_seconds, pairs_of, read_prompt
from taylor_ops.machine.devices import DTYPES, device_named, room_for_weights
from taylor_ops.machine.threads import on_one_thread
from taylor_ops.model.loading import load_original, load_tokenizer
from taylor_ops.model.original import Original
from taylor_ops.preflight.known_source import KnownSource
from taylor_ops.progress import Progress
from taylor_ops.series.ladder import Expansions, cheapest_whole
from taylor_ops.series.plan import Plan
from taylor_ops.texts.prompts import sequences

_TOKENS = 1024
_SMALL_BYTES = 2_000_000_000
_LAYERS = 3
# Fewer bytes could stay in the caches of a processor from step to step, unlike those of a whole model.
_TIMED_BYTES = 500_000_000
_STEPS = 8
_LEAST_PAIRS, _MOST_PAIRS = 5, 15
# An interval this wide, on either side and relative to the cost, shows that other programs were at work.
_WIDE = 0.25
# The extra columns of the dearer candidate, as multiples of those of the cheapest one. Fewer columns tell little of
# what a column costs, and more take long to make.
_LEAST_DEARER, _MOST_DEARER = 2, 3


@dataclass(frozen=True)
class Orders:
    """What the cheapest and the dearest plan need, scaled to all layers.

    Attributes:
        expansions: The expansions of the probed layers.
        ladder: The ladder of the probed layers.
        plan: The cheapest plan of the probed layers that protects every neuron.
        columns: Columns of that plan, in all layers.
        least_columns: Columns of the plan that protects the fewest neurons, in all layers.
        most_columns: Columns of the dearest plan, in all layers.
        layers: Number of probed layers.
        tokens: Number of probed calibration tokens, all of them if ranges were captured before.
        total_tokens: Number of tokens of the whole calibration text.
        capture_seconds: Time for capturing the whole text, 0 if that is done.
        ladder_seconds: Time for finding the columns of every plan.
    """

    expansions: Expansions
    ladder: list[Plan]
    plan: Plan
    columns: float
    least_columns: float
    most_columns: float
    layers: int
    tokens: int
    total_tokens: int
    capture_seconds: float
    ladder_seconds: float


@dataclass(frozen=True)
class Times:
    """What decode steps take, scaled to all layers.

    Attributes:
        cost: The cost from which the slowdown of any plan follows.
        bounds: Costs between which that slowdown surely lies.
        busy: Whether the machine was too busy to tell. The cost by bytes alone is then one of the bounds.
        layers: Number of timed layers.
        pairs: Number of pairs, with the cheapest candidate and with a dearer one together.
        step_seconds: Time of one decode step of the original as latency is measured, at `step_size` sequences.
        step_size: The batch size of the latency measurement.
        batch_seconds: Time of one decode step of the original at `batch_size` sequences.
        batch_size: The batch size of the validation.
        converted_bytes_per_second: Speed of converting one MLP.
    """

    cost: Cost
    bounds: tuple[Cost, ...]
    busy: bool
    layers: int
    pairs: int
    step_seconds: float
    step_size: int
    batch_seconds: float
    batch_size: int
    converted_bytes_per_second: float

    def forward(self, tokens: int) -> float:
        """Seconds of the original for `tokens` at once, on the line through both timed steps."""
        least, sequences_more = self.step_seconds / self.step_size, self.batch_size - self.step_size
        seconds_per_token = (
            max(0.0, (self.batch_seconds - self.step_seconds) / sequences_more) if sequences_more else least
        )
        return max(self.step_seconds + seconds_per_token * (tokens - self.step_size), least)


def orders_of(
    config: ReleaseConfig, original: Original, source: KnownSource, scratch: Path, progress: Progress
) -> Orders:
    """Find the orders from captured ranges or from a part of the text, whose ranges go to `scratch`.

    Raises:
        BadInput: If the basis cannot keep the tolerance.
    """
    all_layers = int(original.config.num_hidden_layers)
    if source.ranges is not None:
        expansions = Subject(original, source.ranges, config.conversion).expansions()
        start = time.monotonic()
        ladder = expansions.ladder()
        found = time.monotonic() - start
        plan = cheapest_whole(ladder)
        columns, least, most = (float(rung.columns) for rung in (plan, ladder[0], ladder[-1]))
        return Orders(
            expansions, ladder, plan, columns, least, most, all_layers, source.tokens, source.tokens, 0.0, found
        )
    small = original.bytes(DTYPES["float32"]) <= _SMALL_BYTES
    probed = all_layers if small else _whole_periods(original, _LAYERS)
    tokenizer, settings = load_tokenizer(original.folder), config.calibration
    total = sum(map(len, sequences(settings.texts, tokenizer, settings.tokens, settings.sequence_tokens)))
    probed_tokens = min(total, _TOKENS)
    seconds: list[float] = []
    ladders: list[list[Plan]] = []
    for tokens in (probed_tokens // 2, probed_tokens):
        start = time.monotonic()
        part = settings.model_copy(update={"tokens": tokens})
        folder, device = scratch / f"ranges-{tokens}", device_named(config.device)
        captured = capture(original.folder, config.conversion.dtype, part, device, folder, progress, layers=probed)
        seconds.append(time.monotonic() - start)
        expansions = Subject(original.first_layers(probed), folder / captured.file, config.conversion).expansions()
        start = time.monotonic()
        ladders.append(_ladder(expansions, tokens, total))
        found = time.monotonic() - start
    doublings, scale = log2(total / probed_tokens), all_layers / probed
    most_columns = ladders[1][-1].columns * scale

    def grown(half: Plan, full: Plan) -> float:
        growth = max(0, full.columns - half.columns)
        return min((full.columns + doublings * growth) * scale, most_columns)

    plan = cheapest_whole(ladders[1])
    seconds_per_token = max(0.0, seconds[1] - seconds[0]) / (probed_tokens - probed_tokens // 2)
    return Orders(
        expansions,
        ladders[1],
        plan,
        grown(cheapest_whole(ladders[0]), plan),
        grown(ladders[0][0], ladders[1][0]),
        most_columns,
        probed,
        probed_tokens,
        total,
        (seconds[1] + seconds_per_token * (total - probed_tokens)) * scale,
        found * scale,
    )


def _ladder(expansions: Expansions, tokens: int, total: int) -> list[Plan]:
    try:
        return expansions.ladder()
    except BadInput as error:
        raise BadInput(f"{error.cause}; seen on {tokens:,} of {total:,} calibration tokens", error.remedy) from error


def times_of(config: ReleaseConfig, original: Original, orders: Orders) -> Times:
    """Time decode steps of the original in turn with its cheapest candidate and a dearer one.

    It times as many layers as a meaningful result needs. Heads are left out and timed alone, so that their time does
    not hide the time of a few layers.

    Raises:
        BadInput: If memory does not hold even one layer.
    """
    device, name = device_named(config.device), config.conversion.dtype
    dtype, all_layers = DTYPES[name], int(original.config.num_hidden_layers)
    room = room_for_weights(device)
    enough_layers = _whole_periods(original, -(-_TIMED_BYTES * all_layers // original.layer_bytes(dtype)))
    scaled_plan = _of_all_layers(orders.plan, orders, all_layers)
    layers = min(orders.layers, layers_that_fit(original, scaled_plan, dtype, room), enough_layers)
    part, scale = original.first_layers(layers), all_layers / layers
    mlp = part.mlps[0]
    weights, layout = part.weights(mlp), orders.expansions.layout(mlp.path, orders.plan)
    start = time.monotonic()
    # On one thread, as a conversion makes them.
    tensors = on_one_thread(mlp_tensors)(weights, layout, dtype)
    converted = sum(tensor.nbytes for tensor in tensors.values()) / max(time.monotonic() - start, 1e-9)
    # A whole released layer would take memory beside the models that are loaded next.
    del tensors, weights
    first, second = (load_original(original.folder, name, device, part.config) for _ in range(2))
    heads = _without_head(first), _without_head(second)
    few_steps = config.latency.model_copy(update={"new_tokens": _STEPS, "disturbance": 1.0})

    def fits(plan: Plan) -> bool:
        columns = _of_all_layers(plan, orders, all_layers).columns
        return bytes_side_by_side(original, columns, dtype, layers) <= room

    timed, busy, seconds = [ORIGINAL], False, []
    for plan in (orders.plan, *_dearer(orders, fits)):
        candidate = convert_in_memory(second, part, orders.expansions, plan)
        pair = _with_head(pairs_of(first, candidate, few_steps, config.seed), heads[0], few_steps, scale)
        pairs = _enough(pair, config.seed)
        slowdown, (low, high) = _slowdown(pairs, config.seed)
        timed.append(TimedPlan(scale * _extra_columns(orders, plan, part), slowdown, low, high))
        busy |= _wide(pairs, config.seed)
        seconds += [original_seconds for original_seconds, _ in pairs]
    cost, bounds = costs_of(*timed[-2:])
    size = config.exactness.batch_size
    prompt = torch.zeros(size, 16, dtype=torch.int64, device=device)
    (decoded,) = decode_seconds([first], [read_prompt(first, prompt)], _STEPS)
    batch_seconds = head_seconds(heads[0], size, _STEPS) + scale * decoded
    return Times(
        cost,
        (*bounds, Cost(cost_of_a_column(original, dtype, device))) if busy else bounds,
        busy,
        layers,
        len(seconds),
        statistics.median(seconds) / _STEPS,
        config.latency.batch_size,
        batch_seconds / _STEPS,
        size,
        converted,
    )


def _of_all_layers(plan: Plan, orders: Orders, all_layers: int) -> Plan:
    """A plan of the probed layers, with its columns scaled to all layers."""
    return plan.model_copy(update={"columns": round(plan.columns * all_layers / orders.layers)})


def _dearer(orders: Orders, fits: Callable[[Plan], bool]) -> list[Plan]:
    """The dearest plan that fits and is dearer than the cheapest by enough but not too much; else none."""
    extra = orders.plan.columns - orders.plan.neurons
    few, many = (orders.plan.neurons + times * extra for times in (_LEAST_DEARER, _MOST_DEARER))
    return [plan for plan in orders.ladder if few <= plan.columns <= many and fits(plan)][-1:]


def _enough(pair: Callable[[], tuple[float, float]], seed: int) -> list[tuple[float, float]]:
    """Pairs of seconds; more of them on a busy machine."""
    pairs = [pair() for _ in range(_LEAST_PAIRS)]
    while _wide(pairs, seed) and len(pairs) < _MOST_PAIRS:
        pairs.append(pair())
    return pairs


def _whole_periods(original: Original, layers: int) -> int:
    """The number of decoder layers, rounded up to whole periods of the model, up to all of its layers."""
    return min(-(-layers // original.period) * original.period, int(original.config.num_hidden_layers))


def _extra_columns(orders: Orders, plan: Plan, part: Original) -> int:
    """Columns of a plan beyond one for each neuron, in the layers of `part`."""
    stacked = (orders.expansions.layout(mlp.path, plan) for mlp in part.mlps)
    return sum(len(layout.neuron) - len(layout.permutation) for layout in stacked)


def _without_head(model: Any) -> Any:
    """Replace the output embeddings of a model by those of a single token, and return the replaced ones."""
    head = model.get_output_embeddings()
    tiny_head = torch.nn.Linear(head.in_features, 1, bias=False, dtype=model.dtype, device=model.device)
    model.set_output_embeddings(tiny_head)
    return head


def _with_head(
    sample: Callable[[], tuple[float, float]], head: Any, settings: Latency, scale: float
) -> Callable[[], tuple[float, float]]:
    """Seconds of both models with their head, scaled by `scale` from the layers that `sample` times."""
    head_seconds(head, settings.batch_size, settings.new_tokens)

    def pair() -> tuple[float, float]:
        outside = head_seconds(head, settings.batch_size, settings.new_tokens)
        original, bundle = sample()
        return outside + scale * original, outside + scale * bundle

    return pair


def _slowdown(pairs: list[tuple[float, float]], seed: int) -> tuple[float, tuple[float, float]]:
    return slowdown_of([a for a, _ in pairs], [b for _, b in pairs], seed)


def _wide(pairs: list[tuple[float, float]], seed: int) -> bool:
    slowdown, (low, high) = _slowdown(pairs, seed)
    return max(high - slowdown, slowdown - low) > _WIDE * max(LEAST_COST, slowdown - 1)
