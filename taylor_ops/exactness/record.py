"""What the stage `validate` leaves: the record of the exactness."""

from __future__ import annotations

from taylor_ops.storage.record import Record


class Divergence(Record):
    """The first position at which two runs of one prompt differ.

    Attributes:
        prompt: Name of the prompt.
        position: Index among the new tokens.
        margin: Log-prob of the original's own token minus log-prob of the other run's token, both by the original.
        tie: Whether the margin is small enough for a numerical tie.
    """

    prompt: str
    position: int
    margin: float
    tie: bool


class Comparison(Record):
    """One run against the original on one data set. Log-probs are in nats, KL(original || other) is per token."""

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
    """The comparisons on one data set: of the bundle and of the noise floor, both with the original.

    Attributes:
        ranges: How many activations of the original leave the captured ranges.
    """

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
    """A prompt and the original's greedy tokens, for a later verification of the bundle."""

    prompt: str
    prompt_tokens: tuple[int, ...]
    new_tokens: tuple[int, ...]


class ExactnessRecord(Record):
    """The whole comparison.

    Attributes:
        tie_margin: The largest margin in nats that counts as a numerical tie, by `tie_rule`.
    """

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


class RangeUse(Record):
    """How many pre-activations of the original on held-out prompts lie outside of the ranges.

    Attributes:
        activations: All pre-activations.
        outside_captured: Those outside of the captured ranges.
        outside_widened: Those outside of the widened ranges too. No bound holds for them.
    """

    activations: int
    outside_captured: int
    outside_widened: int

    def __add__(self, other: RangeUse) -> RangeUse:
        return RangeUse(**{name: count + getattr(other, name) for name, count in self})


class LayerError(Record):
    """Largest measured error of the output of one MLP, as a fraction of its median norm over the calibration text.

    Both models get the original's hidden states and compute in the released dtype. The a-priori bound holds for the
    tokens whose activations are all inside of the widened ranges.

    Attributes:
        path: Module path of the MLP.
        tokens: All tokens that were measured.
        tokens_inside: Those for which the bound holds.
        largest: The largest error over all tokens.
        inside: The largest error over the tokens for which the bound holds. None if there are no such tokens.
    """

    path: str
    tokens: int
    tokens_inside: int
    largest: float
    inside: float | None
