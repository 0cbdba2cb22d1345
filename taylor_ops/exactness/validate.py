"""Compare the tokens of original and bundle, against the original's own noise floor.

Three runs continue every prompt greedily: the original, the bundle, and the original in another legitimate execution
with smaller batches and plain attention (the noise floor). Up to the first divergence two runs have read the same
tokens, so the logits of their steps are teacher-forced on one another. KL, log-prob differences and top-1 agreement are
taken up to this position.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taylor_ops.config.exactness import Exactness
from taylor_ops.config.texts import TextSource
from taylor_ops.conversion.terms import Subject
from taylor_ops.exactness.generation import Continuation, batches, continue_greedily
from taylor_ops.exactness.layers import layer_errors, range_use
from taylor_ops.exactness.record import (
    DataSetExactness,
    ExactnessRecord,
    Perplexity,
    RangeUse,
    RecordedContinuation,
)
from taylor_ops.exactness.tally import Tally
from taylor_ops.model.loading import load_both, load_tokenizer
from taylor_ops.progress import Progress
from taylor_ops.series.ranges import read_ranges
from taylor_ops.texts.prompts import SEQUENCE_TOKENS, Prompt, prompts, sequences

_RECORDED_CONTINUATIONS = 8


TIE_RULE = (
    "a divergence is a numerical tie when the original puts its own token before the other one by no more than twice "
    "the largest log-prob difference that the original shows against itself in the noise-floor run"
)


def validate(
    subject: Subject,
    bundle: Path,
    settings: Exactness,
    device: torch.device,
    progress: Progress,
    scratch: Path | None = None,
) -> ExactnessRecord:
    """Compare the bundle with the original on every data set. `require_exact` judges the result.

    Args:
        subject: The original, the file of its captured ranges, and how it is converted.
        bundle: Folder of the converted model.
        settings: The prompts, the texts and the batch sizes.
        device: Device that holds both models.
        progress: Receives the number of finished batches and the number of all.
        scratch: Folder in which `load_both` may put what memory does not hold. The caller removes it. None: a temporary
            folder.
    """
    with ExitStack() as stack:
        work = scratch or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taylor-validate-")))
        models = load_both(subject.original.folder, bundle, subject.conversion.dtype, device, work)
        return _compared(subject, models, settings, progress)


def _compared(subject: Subject, models: tuple[Any, Any], settings: Exactness, progress: Progress) -> ExactnessRecord:
    """The record that `validate` makes of the loaded models, original and bundle."""
    (first, second), conversion = models, subject.conversion
    tokenizer = load_tokenizer(subject.original.folder)
    data_sets = {source.name: prompts(source, tokenizer) for source in settings.prompts}
    mlps, captured = subject.original.mlps, read_ranges(subject.ranges_file)
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
                run = _run(first, batch, settings.new_tokens, settings.batch_size, tokenizer)
            of_original = {continuation.prompt.id: continuation for continuation in run}
            uses[name] += used[0]
            for tally, run_again in (
                (against_floor, partial(_floor_run, first, batch, settings, tokenizer)),
                (against_bundle, partial(_run, second, batch, settings.new_tokens, settings.batch_size, tokenizer)),
            ):
                for other in run_again():
                    # A recorded continuation must hold in another execution too, and a numerical tie would not.
                    if not tally.add(of_original[other.prompt.id], other):
                        ties.add(other.prompt.id)
            equal = [continuation for prompt, continuation in of_original.items() if prompt not in ties]
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
                bundle=of_bundle.comparison(tie_margin),
                floor=floor.comparison(tie_margin),
                ranges=uses[name],
            )
            for name, (of_bundle, floor) in tallies.items()
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
                prompt=continuation.prompt.id,
                prompt_tokens=continuation.prompt.tokens,
                new_tokens=tuple(continuation.tokens.tolist()),
            )
            for continuation in recorded
        ),
    )


def _run(model: Any, batch: Sequence[Prompt], new_tokens: int, batch_size: int, tokenizer: Any) -> list[Continuation]:
    return list(continue_greedily(model, batch, new_tokens, batch_size, tokenizer.pad_token_id))


def _floor_run(model: Any, batch: Sequence[Prompt], settings: Exactness, tokenizer: Any) -> list[Continuation]:
    """Run the original in other batches and with plain attention. A single prompt runs beside a copy of itself."""
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
    # A broken model may have a loss whose exponential is too large for a float.
    return math.exp(loss) if loss < 700 else math.inf


def _loss(model: Any, text: tuple[int, ...]) -> Tensor:
    """Summed negative log-likelihood in nats of all tokens of a text but the first."""
    ids = torch.tensor([text], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    return torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
