"""Whether a model has a position for every token that a release runs through it at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.model.shape import ModelShape, require_positions
from taylor_ops.texts.prompts import SEQUENCE_TOKENS, longest, sequences

_TABLES = ("wpe.weight", "embed_positions.weight")


def require_readable(config: ReleaseConfig, source: ModelShape, tokenizer: Any) -> None:
    """Read every text of a release once, so that a mistake in one ends the release before its long work.

    A model with a table of learned positions cannot read behind its end. Rotary positions have no end.

    Raises:
        BadInput: A text is not as documented (`texts/prompts`), has a token that the embedding of the model lacks, or
            more tokens than the model has positions.
    """
    learned = any(name.endswith(_TABLES) for name in source.shapes)
    for key, tokens in _run_at_once(config, tokenizer, int(source.config.vocab_size)):
        if learned:
            require_positions(source, key, tokens)


def _run_at_once(config: ReleaseConfig, tokenizer: Any, known: int) -> Iterator[tuple[str, int]]:
    calibration, latency, exactness = config.calibration, config.latency, config.exactness
    for text in calibration.texts:
        longest(text, tokenizer, known)
    yield "`calibration.sequence_tokens`", calibration.sequence_tokens
    yield "`latency.prompt_tokens` and `latency.new_tokens`", latency.prompt_tokens + latency.new_tokens
    for number, shape in enumerate(latency.also):
        key = f"`prompt_tokens` of entry {number + 1} of `latency.also`, and `latency.new_tokens`"
        yield key, shape.prompt_tokens + latency.new_tokens
    new_tokens = exactness.new_tokens
    if config.audit.rebuild:
        new_tokens = max(new_tokens, config.audit.new_tokens)
    for text in exactness.prompts:
        key = f"the longest prompt of `{text.name}`, and `new_tokens` of `exactness` or `audit`"
        yield key, longest(text, tokenizer, known) + new_tokens
    for text in exactness.running_text:
        longest(text, tokenizer, known)
        cuts = sequences((text,), tokenizer, exactness.running_tokens, SEQUENCE_TOKENS)
        yield f"`exactness.running_tokens`, of `{text.name}`", max(map(len, cuts))
