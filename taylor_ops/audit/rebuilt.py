"""Measure a rebuilt model: whether it gives the tokens of the original, and how fast it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from taylor_ops.attacks.conditions import Conditions
from taylor_ops.audit.record import Rebuilt
from taylor_ops.audit.timing import timed
from taylor_ops.config.audit import Audit
from taylor_ops.config.texts import TextSource
from taylor_ops.exactness.generation import batches, continue_greedily
from taylor_ops.exactness.tally import Tally
from taylor_ops.model.loading import load_both, load_tokenizer
from taylor_ops.texts.prompts import Prompt, prompts

_BATCH_SIZE = 12


def held_out(original: Path, sources: Sequence[TextSource], most: int) -> list[Prompt]:
    """At most `most` prompts of the held-out sets of a release, the first ones, tokenised as the original does it."""
    tokenizer = load_tokenizer(original)
    found: list[Prompt] = []
    for source in sources:
        found += prompts(source, tokenizer)[: most - len(found)]
    return found


def measured_against(original: Path, rebuilt: Path, dtype: str, settings: Audit, conditions: Conditions) -> Rebuilt:
    """Continue held-out prompts with both models, compare the tokens, and time the models in turn.

    Weights that do not fit in memory are offloaded to the folder `rebuilt`, which is temporary.
    """
    compared = held_out(original, conditions.sources, settings.prompts)
    pad_token = load_tokenizer(original).pad_token_id
    first, second = load_both(original, rebuilt, dtype, conditions.device, rebuilt / "offloaded")
    tally = Tally()
    for batch in batches(compared, _BATCH_SIZE):
        originals, others = (
            continue_greedily(model, batch, settings.new_tokens, _BATCH_SIZE, pad_token) for model in (first, second)
        )
        for original_tokens, other_tokens in zip(originals, others, strict=True):
            tally.add(original_tokens, other_tokens)
    found = tally.comparison(0.0)
    return Rebuilt(
        prompts=found.prompts,
        prompts_equal=found.prompts_equal,
        tokens_compared=found.tokens_compared,
        kl_mean=found.kl_mean,
        kl_max=found.kl_max,
        top1_agreement=found.top1_agreement,
        residual=timed(first, second, conditions),
    )
