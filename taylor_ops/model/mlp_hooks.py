"""Watch the MLPs of a running model: their inputs, pre-activations, factors and outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn

from taylor_ops.model.architectures import Mlp

Role = Literal["input", "pre_activation", "factor", "output"]
See = Callable[[str, Role, Tensor], None]
"""A function that gets the path of an MLP, a role, and the values [T, H] or [T, F] of this role at T tokens."""


@contextmanager
def watched(model: Any, mlps: Sequence[Mlp], see: See, shown_to_all: int = 0) -> Iterator[None]:
    """Within the block, call `see` with the values of each MLP of an original in every forward pass.

    Padding is left out, by the attention mask of the pass. A plain MLP has no factor.

    Args:
        model: The original, loaded.
        mlps: The MLPs to watch.
        see: Called with the values.
        shown_to_all: An expert of a mixture sees the tokens that are routed to it. Because some experts are rarely
            chosen, each of them also sees every `shown_to_all`-th token of a pass. 0 shows it no other tokens.
    """
    padded = _Padding()
    handles = [model.register_forward_pre_hook(padded, with_kwargs=True)]

    def flat(values: Tensor) -> Tensor:
        return padded.left_out(values.reshape(-1, values.shape[-1]))

    mixtures: dict[str, list[Mlp]] = {}
    for mlp in mlps:
        if mlp.expert is not None:
            mixtures.setdefault(mlp.module, []).append(mlp)
        else:
            handles += _on_layers(model.get_submodule(mlp.module), mlp, lambda p, r, v: see(p, r, flat(v)))
    for path, experts in mixtures.items():
        hook = _on_experts(experts, see, padded, shown_to_all)
        handles.append(model.get_submodule(path).register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Padding:
    """Remembers which rows of the running pass are tokens, or None if all are."""

    def __init__(self) -> None:
        self._tokens: Tensor | None = None

    def __call__(self, _model: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        ids, mask = keywords.get("input_ids", *inputs[:1]), keywords.get("attention_mask")
        self._tokens = None
        if isinstance(ids, Tensor) and isinstance(mask, Tensor) and not bool(mask.all()):
            self._tokens = mask[:, -ids.shape[1] :].reshape(-1).bool()

    def left_out(self, rows: Tensor) -> Tensor:
        """Rows [T, ...] without the rows of padding."""
        return rows if self._tokens is None else rows[self._tokens]


def _on_layers(module: nn.Module, mlp: Mlp, see: See) -> list[Any]:
    kind = mlp.kind

    def on_gate(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        see(mlp.path, "input", inputs[0])
        if kind.up == kind.gate:
            output, factor = output.chunk(2, dim=-1)
            see(mlp.path, "factor", factor)
        see(mlp.path, "pre_activation", output)

    def reported(role: Role) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _layer, _inputs, output: see(mlp.path, role, output)

    handles = [
        getattr(module, kind.gate).register_forward_hook(on_gate),
        getattr(module, kind.down).register_forward_hook(reported("output")),
    ]
    if kind.up is not None and kind.up != kind.gate:
        handles.append(getattr(module, kind.up).register_forward_hook(reported("factor")))
    return handles


def _on_experts(experts: list[Mlp], see: See, padded: _Padding, shown_to_all: int) -> Callable[..., None]:
    def hook(module: Any, inputs: Any) -> None:
        tokens, chosen = (padded.left_out(rows) for rows in inputs[:2])
        sample = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
        if shown_to_all:
            sample[::shown_to_all] = True
        # Weights on the disk are loaded only in the forward pass of their module, which begins after this hook.
        with align_module_device(module):
            for mlp in experts:
                assert mlp.expert is not None
                seen = tokens[torch.eq(chosen, mlp.expert).any(-1) | sample]
                gate, down = (getattr(module, name)[mlp.expert] for name in (mlp.kind.gate, mlp.kind.down))
                z, factor = nn.functional.linear(seen, gate).chunk(2, dim=-1)
                see(mlp.path, "input", seen)
                see(mlp.path, "pre_activation", z)
                see(mlp.path, "factor", factor)
                see(mlp.path, "output", nn.functional.linear(module.act_fn(z) * factor, down))

    return hook
