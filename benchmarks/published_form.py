"""A plain implementation of the paper's formulas: the peer with which the released layer is compared.

It has one product per order, powers by exp and log of |z - z0|, and the terms of all orders in one tensor [H, F, N + 1]
with the order last. The authors of TaylorMLP (arXiv 2410.05331) published their code in this form.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PublishedForm(nn.Module):
    """A gated Taylor MLP of F neurons and one order N for all, in powers of z - z0.

    gate, up: [F, H]. center: [F], z0. terms: [H, F, N + 1], the output weights times phi^(n)(z0). Powers are divided by
    n! when they are taken.
    """

    log_factorial: Tensor

    def __init__(self, gate: Tensor, up: Tensor, center: Tensor, terms: Tensor) -> None:
        super().__init__()
        self.gate, self.up, self.center, self.terms = (
            nn.Parameter(part, requires_grad=False) for part in (gate, up, center, terms)
        )
        orders = torch.arange(terms.shape[-1], dtype=torch.float64)
        self.register_buffer("log_factorial", torch.lgamma(orders + 1).to(terms.dtype))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Output [..., H] for hidden states [..., H]."""
        factor = hidden_states @ self.up.T
        distance = hidden_states @ self.gate.T - self.center
        sign, logarithm = torch.sign(distance), torch.log(distance.abs())
        output: Tensor = factor @ self.terms[:, :, 0].T
        for order in range(1, self.terms.shape[-1]):
            power = torch.exp(order * logarithm - self.log_factorial[order])
            if order % 2:
                power = power * sign
            output = output + (power * factor) @ self.terms[:, :, order].T
        return output
