"""Where the MLPs of each architecture are and which of their tensors play which role.

To add an architecture, add one entry to `ARCHITECTURES` under the `model_type` of its transformers config.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from taylor_ops.errors import BadInput
from taylor_ops.series.activations import activation_named

Shapes = Mapping[str, tuple[int, ...]]

_ACTIVATION_KEYS = ("hidden_act", "hidden_activation", "activation_function", "activation")


@dataclass(frozen=True)
class MlpKind:
    """One kind of MLP of a family, by the names of its modules.

    Attributes:
        path: Module that holds its layers, with {layer} for the number of the layer.
        gate: Layer that makes the pre-activation z.
        up: Layer that makes the factor u of a gated MLP, None for a plain MLP. It is the same as `gate` if one layer
            makes both, with z in its first half.
        down: The output layer, whose weights are protected.
        transposed: Whether weights are stored [in, out], as transformers' Conv1D stores them.
        experts: Whether `gate` and `down` are stacked tensors of many experts, [E, 2F, H] and [E, H, F]. Each expert is
            an MLP of its own.
        bypassed: Modules at `path` between the layers, if the MLP is no module of its own.
    """

    path: str = "model.layers.{layer}.mlp"
    gate: str = "gate_proj"
    up: str | None = "up_proj"
    down: str = "down_proj"
    transposed: bool = False
    experts: bool = False
    bypassed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Architecture:
    """One family of decoder models.

    Attributes:
        model_type: The `model_type` of its transformers config.
        causal_lm: Name of its model class in transformers.
        config: Name of its config class in transformers.
        mlps: The kinds of MLP that its layers may have.
        activation: Attribute of the config that names the activation.
        renamed: Patterns and replacements, applied in order, that turn names in checkpoints into names of modules. The
            three tensors of expert 3 become `<path>.3.gate_proj.weight`, `<path>.3.up_proj.weight` and
            `<path>.3.down_proj.weight`.
    """

    model_type: str
    causal_lm: str
    config: str
    mlps: tuple[MlpKind, ...]
    activation: str = "hidden_act"
    renamed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Mlp:
    """One MLP of one model.

    Attributes:
        path: Module path of the Taylor MLP in the bundle.
        module: Module that holds the layers of the MLP in the original.
        kind: The kind of MLP.
        expert: Number of the expert of a mixture, None for any other MLP.
    """

    path: str
    module: str
    kind: MlpKind
    expert: int | None = None

    @property
    def bypassed(self) -> list[str]:
        """Modules that become the identity, because the Taylor MLP takes the place of the first layer."""
        return [f"{self.module}.{name}" for name in (*self.kind.bypassed, self.kind.down) if self.kind.bypassed]


_GATED = MlpKind()
_FUSED = MlpKind(gate="gate_up_proj", up="gate_up_proj")
_EXPERTS = MlpKind(path="model.layers.{layer}.mlp.experts", gate="gate_up_proj", up="gate_up_proj", experts=True)
_GEMMA4_EXPERTS = MlpKind(path="model.layers.{layer}.experts", gate="gate_up_proj", up="gate_up_proj", experts=True)


def _plain(path: str, gate: str, down: str, transposed: bool = False) -> MlpKind:
    return MlpKind(path=path, gate=gate, up=None, down=down, transposed=transposed)


def _family(model_type: str, prefix: str, *mlps: MlpKind, **more: Any) -> Architecture:
    return Architecture(model_type, f"{prefix}ForCausalLM", f"{prefix}Config", mlps or (_GATED,), **more)


_MIXTRAL_NAMES = (
    (r"\.block_sparse_moe\.", ".mlp."),
    (r"(\.experts\.\d+)\.w1\.", r"\1.gate_proj."),
    (r"(\.experts\.\d+)\.w3\.", r"\1.up_proj."),
    (r"(\.experts\.\d+)\.w2\.", r"\1.down_proj."),
)

ARCHITECTURES: dict[str, Architecture] = {
    entry.model_type: entry
    for entry in (
        _family("cohere2", "Cohere2"),
        _family(
            "falcon",
            "Falcon",
            _plain("transformer.h.{layer}.mlp", "dense_h_to_4h", "dense_4h_to_h"),
            activation="activation",
        ),
        _family("gemma2", "Gemma2", activation="hidden_activation"),
        Architecture("gemma3_text", "Gemma3ForCausalLM", "Gemma3TextConfig", (_GATED,), "hidden_activation"),
        Architecture(
            "gemma4_text", "Gemma4ForCausalLM", "Gemma4TextConfig", (_GATED, _GEMMA4_EXPERTS), "hidden_activation"
        ),
        _family("glm4", "Glm4", _FUSED),
        Architecture(
            "gpt2",
            "GPT2LMHeadModel",
            "GPT2Config",
            (_plain("transformer.h.{layer}.mlp", "c_fc", "c_proj", transposed=True),),
            "activation_function",
            ((r"^(?!transformer\.|lm_head\.)", "transformer."),),
        ),
        _family(
            "gpt_neox",
            "GPTNeoX",
            _plain("gpt_neox.layers.{layer}.mlp", "dense_h_to_4h", "dense_4h_to_h"),
            renamed=((r"^embed_out\.", "lm_head."),),
        ),
        _family("granite", "Granite"),
        _family("llama", "Llama"),
        _family("mistral", "Mistral"),
        _family("mixtral", "Mixtral", _EXPERTS, renamed=_MIXTRAL_NAMES),
        _family("olmo2", "Olmo2"),
        _family(
            "opt",
            "OPT",
            MlpKind("model.decoder.layers.{layer}", gate="fc1", up=None, down="fc2", bypassed=("activation_fn",)),
            activation="activation_function",
            renamed=((r"^decoder\.", "model.decoder."),),
        ),
        _family("phi", "Phi", _plain("model.layers.{layer}.mlp", "fc1", "fc2")),
        _family("phi3", "Phi3", _FUSED),
        _family("qwen2", "Qwen2"),
        _family("qwen3", "Qwen3"),
        Architecture(
            "qwen3_5_text",
            "Qwen3_5ForCausalLM",
            "Qwen3_5TextConfig",
            (_GATED,),
            renamed=((r"^model\.language_model\.", "model."),),
        ),
        _family("qwen3_moe", "Qwen3Moe", _GATED, _EXPERTS),
        _family("smollm3", "SmolLM3"),
        _family("stablelm", "StableLm"),
        _family("starcoder2", "Starcoder2", _plain("model.layers.{layer}.mlp", "c_fc", "c_proj")),
    )
}


def architecture_of(model_config: Any, shapes: Shapes) -> Architecture:
    """The architecture of a model, by its transformers config and the shapes of its tensors.

    An architecture without an entry is recognised by the structure of its MLPs. Raises `BadInput` with the known names
    if nothing is recognised or the activation is not known.
    """
    entry = ARCHITECTURES.get(model_config.model_type) or _recognised(model_config, shapes)
    if entry is None:
        raise BadInput(
            f"architecture `{model_config.model_type}` is not known; known are {', '.join(sorted(ARCHITECTURES))}",
            "release one of these, or add an entry to taylor_ops/model/architectures.py",
        )
    activation_named(getattr(model_config, entry.activation))
    return entry


def mlps_of(architecture: Architecture, shapes: Shapes) -> list[Mlp]:
    """Every MLP of a model whose tensors have these `shapes`, first layer first."""
    mlps: list[Mlp] = []
    for kind in architecture.mlps:
        ending = kind.down if kind.experts else f"{kind.down}.weight"
        pattern = re.compile(re.escape(f"{kind.path}.{ending}").replace(r"\{layer\}", r"(\d+)"))
        for name, shape in shapes.items():
            match = pattern.fullmatch(name)
            if match:
                mlps.extend(_mlps_at(kind, kind.path.format(layer=match[1]), shape))
    return sorted(mlps, key=lambda mlp: tuple(int(part) for part in mlp.path.split(".") if part.isdigit()))


def _mlps_at(kind: MlpKind, module: str, shape: tuple[int, ...]) -> Iterator[Mlp]:
    if kind.experts:
        yield from (Mlp(f"{module}.{expert}", module, kind, expert) for expert in range(shape[0]))
    else:
        yield Mlp(f"{module}.{kind.gate}" if kind.bypassed else module, module, kind)


def _recognised(model_config: Any, shapes: Shapes) -> Architecture | None:
    """An entry for a family without one, if its layers have MLPs of known kinds, and one kind only at each path."""
    causal_lm = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_config.model_type)
    activation = next((key for key in _ACTIVATION_KEYS if hasattr(model_config, key)), None)
    kinds = {mlp for entry in ARCHITECTURES.values() for mlp in entry.mlps if not mlp.bypassed}
    children = _children(shapes)
    found = sorted({placed for kind in kinds for placed in _placed(kind, children)}, key=lambda kind: kind.path)
    if not causal_lm or not activation or not found or len({kind.path for kind in found}) < len(found):
        return None
    config = CONFIG_MAPPING[model_config.model_type].__name__
    return Architecture(model_config.model_type, causal_lm, config, tuple(found), activation)


def _children(names: Iterable[str]) -> dict[str, set[str]]:
    """Names of the direct children of every module, from the names of the tensors of a model."""
    children: dict[str, set[str]] = {}
    for name in names:
        while name:
            module, _, child = name.rpartition(".")
            children.setdefault(module, set()).add(child)
            name = module
    return children


def _placed(kind: MlpKind, children: Mapping[str, set[str]]) -> Iterator[MlpKind]:
    """`kind` at every path, with {layer} for a number, where exactly its layers stand side by side."""
    layers = {kind.gate, kind.down} | ({kind.up} if kind.up else set())
    for module, names in children.items():
        parts = module.split(".")
        numbers = [place for place, part in enumerate(parts) if part.isdigit()]
        if names != layers or len(numbers) != 1:
            continue
        if kind.experts or "weight" in children.get(f"{module}.{kind.down}", ()):
            parts[numbers[0]] = "{layer}"
            yield replace(kind, path=".".join(parts))
