"""Under which names a checkpoint stores the tensors of a model, and what it may store beside them."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, apply_renamings

DERIVED = (
    (r"(^|\.)rotary_emb\.inv_freq$", None, "rotary frequencies, which the config gives"),
    (r"(^|\.)(attn|attention|crossattention)\.bias$", 4, "the causal mask of attention"),
    (r"(^|\.)(attn|attention|crossattention)\.masked_bias$", 0, "the value of masked positions"),
    (r"(^|\.)position_ids$", 2, "the numbers of the positions"),
    (r"\._extra_state$", None, "the state of a training library"),
    (r"^v_head\.", None, "the value head of reinforcement learning"),
)
"""Tensors that older versions or a training leave in checkpoints, and no causal language model reads: a pattern of
their names, their number of dimensions if it tells them from a weight, and what they are."""


@dataclass(frozen=True)
class StoredNames:
    """How transformers finds the tensors of one model in its checkpoint.

    Attributes:
        prefix: Name of the base model, which the names in a checkpoint may have or lack.
        tied: The tensor that each tied tensor shares its values with.
        computed: Buffers that the model computes and never reads.
        whole_numbers: Tensors that are not of a floating-point type.
        renamings: The renamings that transformers applies, in order.
    """

    prefix: str
    tied: dict[str, str]
    computed: frozenset[str]
    whole_numbers: frozenset[str]
    renamings: tuple[Any, ...]

    @classmethod
    def of(cls, model: Any) -> StoredNames:
        """The names of a model of transformers, which may be on the meta device."""
        return cls(
            prefix=model.base_model_prefix,
            tied=dict(model.all_tied_weights_keys),
            computed=frozenset(name for name, _ in model.named_non_persistent_buffers()),
            whole_numbers=frozenset(name for name, one in model.state_dict().items() if not one.is_floating_point()),
            renamings=tuple(one for one in get_model_conversion_mapping(model) if isinstance(one, WeightRenaming)),
        )

    def module_name(self, stored: str, renamed: Sequence[tuple[str, str]], known: Container[str]) -> str:
        """The name in the modules of a tensor that is stored as `stored`, as transformers finds it.

        Args:
            stored: The name in the checkpoint.
            renamed: Further patterns and replacements, applied in order after those of transformers.
            known: The names of all tensors that the model has.
        """
        name = apply_renamings(stored, list(self.renamings))
        for pattern, replacement in renamed:
            name = re.sub(pattern, replacement, name)
        name = self._with_the_prefix(name, known)
        return self._with_the_prefix(stored, known) if name not in known and stored in known else name

    def _with_the_prefix(self, name: str, known: Container[str]) -> str:
        shorter, longer = name.removeprefix(f"{self.prefix}."), f"{self.prefix}.{name}"
        if shorter != name and shorter in known:
            return shorter
        return longer if longer in known else name

    def is_derived(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether a tensor that the model does not read, by its name in the modules, may be left out without a word."""
        return name in self.computed or any(
            re.search(pattern, name) and dimensions in (None, len(shape)) for pattern, dimensions, _ in DERIVED
        )
