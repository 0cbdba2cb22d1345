"""Exactness: do the original and the bundle say the same tokens, judged against the original's own noise floor.

Every prompt is continued greedily by the original, by the original under another legitimate execution (smaller batches
and plain attention: the noise floor) and by the bundle. Up to the first divergence two runs have read the same tokens,
so the logits of their steps are teacher-forced on one another; KL, log-prob differences and top-1 agreement are taken
there.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taylor_ops.config.conversion import Conversion
from taylor_ops.config.exactness import Exactness
from taylor_ops.config.texts import TextSource
from taylor_ops.errors import GateRejected
from taylor_ops.generation import Continuation, batches, continue_greedily
from taylor_ops.layer_checks import LayerError, RangeUse, layer_errors, range_use
from taylor_ops.model.loading import load_both, load_tokenizer
from taylor_ops.model.original import Original
from taylor_ops.progress import Progress
from taylor_ops.series.ranges import read_ranges
from taylor_ops.storage.record import Record
from taylor_ops.texts.prompts import SEQUENCE_TOKENS, Prompt, prompts, sequences

_RECORDED_CONTINUATIONS = 8
_CHANCE = 0.01


class Divergence(Record):
    """The first position at which two runs of one prompt differ.

    margin: log-prob of the original's token there over that of the other run, both by the original. tie: margin within
    the run's tie rule.
    """

    prompt: str
    position: int
    margin: float
    tie: bool


class Comparison(Record):
    """One run against the original on one data set. Log-probs in nats; KL(original || other) per token."""

    prompts: int
    prompts_equal: int
    tokens_compared: int
    first_divergence: int | None
    divergences: tuple[Divergence, ...]
    kl_mean: float
    kl_max: float
    log_prob_difference_max: float
    top1_agreement: float


class DataSetExactness(Record):
    """A data set: the bundle and the noise floor, both against the original, and how far its activations go."""

    name: str
    bundle: Comparison
    floor: Comparison
    ranges: RangeUse


class Perplexity(Record):
    """Perplexity of both models on one running text."""

    name: str
    tokens: int
    original: float
    bundle: float


class RecordedContinuation(Record):
    """A prompt and the original's greedy tokens, for whoever verifies a bundle later."""

    prompt: str
    prompt_tokens: tuple[int, ...]
    new_tokens: tuple[int, ...]


class ExactnessRecord(Record):
    """The whole comparison. tie_margin: largest margin (nats) that counts as a numerical tie, by `tie_rule`."""

    dtype: str
    new_tokens: int
    batch_size: int
    floor_batch_size: int
    data_sets: tuple[DataSetExactness, ...]
    layers: tuple[LayerError, ...]
    perplexity: tuple[Perplexity, ...]
    tie_margin: float
    tie_rule: str
    continuations: tuple[RecordedContinuation, ...]


@dataclass
class Tally:
    """Running totals of one comparison of greedy continuations."""

    prompts: int = 0
    equal: int = 0
    tokens: int = 0
    agreed: int = 0
    kl_sum: float = 0.0
    kl_max: float = 0.0
    difference: float = 0.0
    diverged: list[tuple[str, int, float]] = field(default_factory=list)

    def add(self, original: Continuation, other: Continuation) -> bool:
        """Compare one prompt; returns whether its tokens are equal to the end."""
        apart = torch.nonzero(original.tokens != other.tokens).flatten()
        shared = int(apart[0]) + 1 if len(apart) else len(original.tokens)
        p = original.logits[:shared].double().log_softmax(-1)
        q = other.logits[:shared].double().log_softmax(-1)
        gap = p - q
        kl = (p.exp() * gap).sum(-1).clamp_min(0)
        self.prompts += 1
        self.tokens += shared
        self.agreed += int((p.argmax(-1) == q.argmax(-1)).sum())
        self.kl_sum += float(kl.sum())
        # max(nan, x) would forget the nan that a broken model makes.
        self.kl_max = _larger(self.kl_max, float(kl.max()))
        self.difference = _larger(self.difference, float(gap.abs_().max()))
        if len(apart):
            own, rival = p[shared - 1, [original.tokens[shared - 1], other.tokens[shared - 1]]].tolist()
            self.diverged.append((original.prompt.id, shared - 1, own - rival))
        else:
            self.equal += 1
        return not len(apart)

    def comparison(self, tie_margin: float) -> Comparison:
        """The totals; a divergence with a margin (nats) up to `tie_margin` is a tie."""
        return Comparison(
            prompts=self.prompts,
            prompts_equal=self.equal,
            tokens_compared=self.tokens,
            first_divergence=min((position for _, position, _ in self.diverged), default=None),
            divergences=tuple(
                Divergence(prompt=prompt, position=position, margin=margin, tie=margin <= tie_margin)
                for prompt, position, margin in self.diverged
            ),
            kl_mean=self.kl_sum / self.tokens,
            kl_max=self.kl_max,
            log_prob_difference_max=self.difference,
            top1_agreement=self.agreed / self.tokens,
        )


def _larger(a: float, b: float) -> float:
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)


TIE_RULE = (
    "a divergence is a numerical tie when the original puts its own token before the other one by no more than twice "
    "the largest log-prob difference that the original shows against itself in the noise-floor run"
)


def validate(
    original: Path,
    bundle: Path,
    ranges_file: Path,
    conversion: Conversion,
    settings: Exactness,
    device: torch.device,
    progress: Progress,
    scratch: Path | None = None,
) -> ExactnessRecord:
    """Compare the bundle with the original on every data set. Judging is `require_exact`'s.

    scratch: where `load_both` may put what memory does not hold, for the caller to remove; a temporary folder where
    none is given.
    """
    with ExitStack() as stack:
        work = scratch or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taylor-validate-")))
        models = load_both(original, bundle, conversion.dtype, device, work)
        return _compared(original, models, ranges_file, conversion, settings, progress)


def _compared(
    original: Path,
    models: tuple[Any, Any],
    ranges_file: Path,
    conversion: Conversion,
    settings: Exactness,
    progress: Progress,
) -> ExactnessRecord:
    """What `validate` finds of the original and the bundle that are loaded."""
    first, second = models
    tokenizer = load_tokenizer(original)
    data_sets = {source.name: prompts(source, tokenizer) for source in settings.prompts}
    mlps, captured = Original(original).mlps, read_ranges(ranges_file)
    rounds = sum(len(batches(held_out, settings.batch_size)) for held_out in data_sets.values())
    done = 0
    tallies: dict[str, tuple[Tally, Tally]] = {}
    uses: dict[str, RangeUse] = {}
    recorded: list[Continuation] = []
    for name, held_out in data_sets.items():
        against_bundle, against_floor = tallies.setdefault(name, (Tally(), Tally()))
        uses[name] = RangeUse(activations=0, outside_captured=0, outside_widened=0)
        for batch in batches(held_out, settings.batch_size):
            ties: set[str] = set()
            with range_use(first, mlps, captured, conversion.range_margin) as used:
                said = {c.prompt.id: c for c in _run(first, batch, settings.new_tokens, settings.batch_size, tokenizer)}
            uses[name] += used[0]
            for tally, run in (
                (against_floor, partial(_again, first, batch, settings, tokenizer)),
                (against_bundle, partial(_run, second, batch, settings.new_tokens, settings.batch_size, tokenizer)),
            ):
                for other in run():
                    # What is recorded must hold in another execution too: a numerical tie would not.
                    if not tally.add(said[other.prompt.id], other):
                        ties.add(other.prompt.id)
            equal = [continuation for name_, continuation in said.items() if name_ not in ties]
            recorded.extend(equal[: _RECORDED_CONTINUATIONS - len(recorded)])
            done += 1
            progress(done, rounds)
    tie_margin = 2 * max(floor.difference for _, floor in tallies.values())
    return ExactnessRecord(
        dtype=conversion.dtype,
        new_tokens=settings.new_tokens,
        batch_size=settings.batch_size,
        floor_batch_size=settings.floor_batch_size,
        data_sets=tuple(
            DataSetExactness(
                name=name,
                bundle=bundle_.comparison(tie_margin),
                floor=floor.comparison(tie_margin),
                ranges=uses[name],
            )
            for name, (bundle_, floor) in tallies.items()
        ),
        layers=layer_errors(
            first,
            second,
            mlps,
            captured,
            conversion.range_margin,
            [prompt.tokens for held_out in data_sets.values() for prompt in held_out],
        ),
        perplexity=tuple(
            _perplexities(source, first, second, tokenizer, settings.running_tokens) for source in settings.running_text
        ),
        tie_margin=tie_margin,
        tie_rule=TIE_RULE,
        continuations=tuple(
            RecordedContinuation(
                prompt=said_.prompt.id, prompt_tokens=said_.prompt.tokens, new_tokens=tuple(said_.tokens.tolist())
            )
            for said_ in recorded
        ),
    )


def _run(model: Any, batch: Sequence[Prompt], new_tokens: int, batch_size: int, tokenizer: Any) -> list[Continuation]:
    return list(continue_greedily(model, batch, new_tokens, batch_size, tokenizer.pad_token_id))


def _again(model: Any, batch: Sequence[Prompt], settings: Exactness, tokenizer: Any) -> list[Continuation]:
    """The original once more, in other batches and with plain attention; a lone prompt runs beside a copy of itself."""
    with _plain_attention(model):
        if len(batch) == 1:
            return _run(model, [*batch, *batch], settings.new_tokens, 2, tokenizer)[:1]
        return _run(model, batch, settings.new_tokens, min(settings.floor_batch_size, len(batch) - 1), tokenizer)


@contextmanager
def _plain_attention(model: Any) -> Iterator[None]:
    """While open, `model` computes attention step by step (`eager`), as every architecture can."""
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


def _perplexities(source: TextSource, original: Any, bundle: Any, tokenizer: Any, tokens: int) -> Perplexity:
    texts = sequences((source,), tokenizer, tokens, SEQUENCE_TOKENS)
    total = sum(len(text) - 1 for text in texts)
    losses = [sum(float(_loss(model, text)) for text in texts) / total for model in (original, bundle)]
    return Perplexity(name=source.name, tokens=total, original=_perplexity(losses[0]), bundle=_perplexity(losses[1]))


def _perplexity(loss: float) -> float:
    # A broken model may lose more than a float can hold the exponential of.
    return math.exp(loss) if loss < 700 else math.inf


def _loss(model: Any, text: tuple[int, ...]) -> Tensor:
    """Summed negative log-likelihood in nats of all tokens of a text but the first."""
    ids = torch.tensor([text], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    return torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")


def require_exact(record: ExactnessRecord) -> None:
    """The exactness gate: every prompt equal, or every divergence a tie and no more of them than the floor has.

    In 16 bits both runs diverge by rounding, on prompts that chance picks: there the bundle may have more ties than the
    floor by as much as chance explains (`chance_of_so_many`), but none where the floor has none. Raises `GateRejected`
    naming the data set, the prompt, the position and the margin.
    """
    for data_set in record.data_sets:
        bundle, floor = data_set.bundle, data_set.floor
        where = f"data set `{data_set.name}`: {bundle.prompts_equal} of {bundle.prompts} prompts equal"
        remedy = (
            "tighten `conversion.tolerance`, widen `conversion.range_margin`, or calibrate on text like these prompts"
        )
        if not math.isfinite(bundle.kl_max):
            raise GateRejected(f"{where}; the bundle computes values that are not finite", remedy)
        apart = next((divergence for divergence in bundle.divergences if not divergence.tie), None)
        if apart is not None:
            raise GateRejected(
                f"{where}; {apart.prompt} differs at new token {apart.position}, where the original leads by "
                f"{apart.margin:.2g} nats: no numerical tie (limit {record.tie_margin:.2g})",
                remedy,
            )
        if len(bundle.divergences) > len(floor.divergences):
            more = f"{where}; its {len(bundle.divergences)} ties are more than the {len(floor.divergences)} of the "
            chance = chance_of_so_many(bundle, floor)
            if record.dtype == "float32" or not floor.divergences:
                raise GateRejected(f"{more}original against itself", remedy)
            if chance < _CHANCE:
                raise GateRejected(f"{more}original against itself, by chance in {chance:.1g} of cases", remedy)


def chance_of_so_many(bundle: Comparison, floor: Comparison) -> float:
    """How likely the bundle has so many more divergences than the floor if both diverge equally often.

    One-sided exact test of McNemar (Psychometrika 12, 1947) over the prompts on which one of them diverges alone.
    """
    ours, floors = ({divergence.prompt for divergence in run.divergences} for run in (bundle, floor))
    alone, apart = len(ours - floors), len(ours ^ floors)
    return float(sum(math.comb(apart, more) for more in range(alone, apart + 1)) / 2**apart)
