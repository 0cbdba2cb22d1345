"""Where the MLPs of each architecture are and which of their layers play which role.

Adding an architecture is one entry in `ARCHITECTURES`, keyed by the `model_type` of its transformers config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taylor_ops.activations import activation_named
from taylor_ops.errors import BadInput


@dataclass(frozen=True)
class Architecture:
    """One family of decoder models.

    causal_lm, config: names of its classes in transformers.
    mlp: path of the MLP of layer {layer}.
    gate: layer that makes the pre-activation z. up: layer that makes the factor u of a gated MLP, None for a plain one.
    down: the output layer, whose weights are withheld.
    activation: attribute of the config that names the activation.
    """

    model_type: str
    causal_lm: str
    config: str
    mlp: str = "model.layers.{layer}.mlp"
    gate: str = "gate_proj"
    up: str | None = "up_proj"
    down: str = "down_proj"
    activation: str = "hidden_act"

    def mlp_paths(self, model_config: Any) -> list[str]:
        """Module path of every MLP, first layer first."""
        return [self.mlp.format(layer=layer) for layer in range(model_config.num_hidden_layers)]

    def roles(self) -> Mapping[str, str | None]:
        """Names of the layers inside an MLP, as the bundle's config carries them."""
        return {"gate": self.gate, "up": self.up, "down": self.down}


def _gated(model_type: str, prefix: str) -> Architecture:
    return Architecture(model_type, causal_lm=f"{prefix}ForCausalLM", config=f"{prefix}Config")


ARCHITECTURES: dict[str, Architecture] = {
    entry.model_type: entry
    for entry in (
        _gated("llama", "Llama"),
        _gated("mistral", "Mistral"),
        _gated("qwen2", "Qwen2"),
        _gated("qwen3", "Qwen3"),
        Architecture("phi", "PhiForCausalLM", "PhiConfig", gate="fc1", up=None, down="fc2"),
    )
}


def architecture_of(model_config: Any) -> Architecture:
    """The architecture of a transformers config, checked to have a known activation; `BadInput` otherwise."""
    entry = ARCHITECTURES.get(model_config.model_type)
    if entry is None:
        raise BadInput(
            f"architecture `{model_config.model_type}` is not known; known are {', '.join(sorted(ARCHITECTURES))}",
            "release one of these, or add an entry to taylor_ops/architectures.py",
        )
    activation_named(getattr(model_config, entry.activation))
    return entry
