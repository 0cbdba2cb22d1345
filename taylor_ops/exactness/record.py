"""What the stage `validate` leaves: the record of the exactness."""

from __future__ import annotations

from taylor_ops.storage.record import Record


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


class RangeUse(Record):
    """Pre-activations of the original on held-out prompts: all, and those outside of what was captured.

    outside_captured: beyond what calibration saw. outside_widened: beyond the margin too, where no bound holds.
    """

    activations: int
    outside_captured: int
    outside_widened: int

    def __add__(self, other: RangeUse) -> RangeUse:
        return RangeUse(**{name: count + getattr(other, name) for name, count in self})


class LayerError(Record):
    """Largest measured error of the output of one MLP, as a fraction of its median norm over the calibration text.

    Both models are given the original's hidden states and compute in the released dtype. inside: over the tokens whose
    activations are all within the widened ranges, where the a-priori bound holds; None where there is no such token.
    """

    path: str
    tokens: int
    tokens_inside: int
    largest: float
    inside: float | None
