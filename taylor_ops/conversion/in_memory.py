"""Make a candidate of the calibration: turn an original in memory into a bundle, without writing it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from taylor_ops.conversion.modeling_files import taylor_entry
from taylor_ops.conversion.terms import mlp_tensors, mlp_tensors_by_rows
from taylor_ops.errors import WorkFailed
from taylor_ops.model.original import Original
from taylor_ops.model.shards import write_tensors
from taylor_ops.modeling.taylor_mlp import install
from taylor_ops.series.ladder import Expansions
from taylor_ops.series.plan import Plan
from taylor_ops.storage.files import disk_errors_explained, leave_page_cache, require_free


def convert_in_memory(
    model: Any,
    original: Original,
    expansions: Expansions,
    plan: Plan,
    mapped: Path | None = None,
) -> Any:
    """Put Taylor MLPs under `plan` into a loaded original, in place.

    Args:
        model: The loaded original, or a candidate that was made of it before.
        original: Its tensors.
        expansions: The expansions of its neurons.
        plan: What decides the orders of all neurons.
        mapped: Folder for files from which the tensors are mapped, as the tensors of a loaded model on the CPU are.
            Files that an earlier call wrote there for this plan are mapped once more. Their pages come from the disk,
            as after a restart: the system may keep a file that was just written in larger pages, which are read faster.
            The files may be removed afterwards. None: the tensors are in memory alone.

    Returns:
        The same model.
    """
    dtype, device, hidden = model.dtype, model.device, int(original.config.hidden_size)
    stacked = {mlp.path: expansions.layout(mlp.path, plan) for mlp in original.mlps}
    with torch.device("meta"):
        widths = {path: layout.widths for path, layout in stacked.items()}
        unprotected = {path: layout.clear for path, layout in stacked.items()}
        install(model, taylor_entry(original, plan, widths, unprotected))
    values = sum(original.input_values(mlp) + len(stacked[mlp.path].neuron) * hidden for mlp in original.mlps)
    needed = dtype.itemsize * values
    if mapped is not None and not any(mapped.iterdir()):
        require_free(mapped, needed)
    for mlp in original.mlps:
        weights, layout = original.weights(mlp), stacked[mlp.path]
        if mapped is None:
            tensors = mlp_tensors(weights, layout, dtype)
            on_device = {name: tensor.contiguous().to(device) for name, tensor in tensors.items()}
        else:
            file = mapped / f"{mlp.path}.safetensors"
            with disk_errors_explained(mapped, needed):
                if not file.exists():
                    write_tensors(mlp_tensors_by_rows(weights, layout, dtype), file)
                leave_page_cache(file)
            on_device = load_file(file)
        model.get_submodule(mlp.path).load_state_dict(on_device, assign=True, strict=False)
    path, _, name = original.guard.rpartition(".")
    guard = torch.nn.Parameter(torch.zeros(1, dtype=dtype, device=device), requires_grad=False)
    model.get_submodule(path).register_parameter(name, guard)
    unfilled = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if unfilled:
        raise WorkFailed(f"tensor {unfilled[0]} of a candidate was not made", "this is a defect of the conversion")
    return model.eval()
