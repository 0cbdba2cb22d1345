"""The files that make a converted folder loadable: the modeling code, and the config with the layout of its MLPs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from taylor_ops.errors import BadInput
from taylor_ops.model.architectures import Architecture
from taylor_ops.model.original import Original
from taylor_ops.series.plan import Plan
from taylor_ops.storage.files import canonical_json, read_json, write_text

_MODELING = '''\
"""Loads this Taylor MLP release of a {causal_lm}: transformers and torch are all it needs."""

from transformers import {config}, {causal_lm}

from .taylor_mlp import install


class TaylorConfig({config}):
    """The config of the original, with the layout of its Taylor MLPs in `taylor_mlp`."""

    model_type = "{model_type}"


class TaylorForCausalLM({causal_lm}):
    """The original architecture with Taylor MLPs."""

    config_class = TaylorConfig

    def __init__(self, config):
        super().__init__(config)
        install(self, config.taylor_mlp)
'''


def taylor_entry(
    original: Original, plan: Plan, widths: Mapping[str, list[int]], unprotected: Mapping[str, int]
) -> dict[str, Any]:
    """The `taylor_mlp` entry of a bundle's config, which `taylor_mlp.install` reads.

    Args:
        original: The original.
        plan: What decides the orders of all neurons.
        widths: How many neurons have a term of each order, by the path of the MLP.
        unprotected: How many neurons keep their output weights, by the path of the MLP.
    """
    kinds = {(mlp.kind.up is not None, tuple(original.biases(mlp))) for mlp in original.mlps}
    if len(kinds) != 1:
        raise BadInput(
            f"the MLPs of `{original.architecture.model_type}` differ in gates or biases from layer to layer",
            "release a model whose layers have MLPs of one form",
        )
    ((gated, biases),) = kinds
    down = original.shapes[original.guard]
    return {
        "basis": plan.basis,
        "activation": original.activation.name,
        "hidden_size": down[-1] if original.mlps[0].kind.transposed else down[-2],
        "gated": gated,
        "biases": list(biases),
        "experts": sorted({mlp.module for mlp in original.mlps if mlp.kind.experts}),
        "bypassed": [path for mlp in original.mlps for path in mlp.bypassed],
        "layers": dict(widths),
        "clear": {path: number for path, number in unprotected.items() if number},
        "guard": original.guard,
    }


def write_code(folder: Path, architecture: Architecture) -> None:
    """Write the modeling code: the Taylor MLP, and the model classes of the architecture that install it."""
    layer_code = (files("taylor_ops.modeling") / "taylor_mlp.py").read_text(encoding="utf-8")
    write_text(folder / "taylor_mlp.py", layer_code)
    model_code = _MODELING.format(
        causal_lm=architecture.causal_lm,
        config=architecture.config,
        model_type=f"taylor_{architecture.model_type}",
    )
    write_text(folder / "modeling_taylor.py", model_code)


def write_config(
    original: Original,
    folder: Path,
    plan: Plan,
    widths: Mapping[str, list[int]],
    unprotected: Mapping[str, int],
    dtype: str,
) -> None:
    """Write the config of the original with the layout of its Taylor MLPs (see `taylor_entry`)."""
    config = read_json(original.folder / "config.json")
    for local in ("_name_or_path", "_model_name_or_path", "torch_dtype"):
        config.pop(local, None)
    config |= {
        # transformers does not know this model type, so nothing can load the bundle without its code by mistake.
        "model_type": f"taylor_{original.architecture.model_type}",
        "architectures": ["TaylorForCausalLM"],
        "auto_map": {
            "AutoConfig": "modeling_taylor.TaylorConfig",
            "AutoModelForCausalLM": "modeling_taylor.TaylorForCausalLM",
        },
        "dtype": dtype,
        "taylor_mlp": taylor_entry(original, plan, widths, unprotected),
    }
    write_text(folder / "config.json", canonical_json(config))


def is_bundle(folder: Path) -> bool:
    """Whether a folder holds a model with Taylor MLPs."""
    try:
        return "taylor_mlp" in read_json(folder / "config.json")
    except (OSError, ValueError):
        return False
