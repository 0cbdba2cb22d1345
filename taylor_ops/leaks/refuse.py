"""The leak gate: only the files of the manifest leave this machine, with no protected weight and no secret in them.

The integrity gate in `conversion/integrity` knows what every converted tensor must be. This gate knows nothing about
how a bundle was made. It reads the files as they will be published and looks for what must not be in them.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from taylor_ops.conversion.record import LayerConversion
from taylor_ops.errors import GateRejected
from taylor_ops.leaks.record import NoLeak
from taylor_ops.leaks.telling import bare_columns
from taylor_ops.leaks.texts import Machine, leak_in
from taylor_ops.leaks.weights import Found, ProtectedLines, output_weights
from taylor_ops.model.checkpoint import read_header
from taylor_ops.model.original import Original
from taylor_ops.progress import Progress
from taylor_ops.storage.files import sha256_of_tree

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz")
_LOOKED_AT_ROWS = 16
# A coefficient close to 1 rounds to 1 in 16 bits. This share of the neurons of a layer may have such a coefficient by
# chance.
_BARE_BY_CHANCE = 0.05
_REMEDY = "nothing was published; remove it from the bundle or from what the bundle is made of, then run again"


def require_no_leak(
    bundle: Path,
    files: Mapping[str, str],
    original: Path,
    source_files: Mapping[str, str],
    layers: Sequence[LayerConversion],
    public: Sequence[str],
    machine: Machine,
    progress: Progress,
) -> NoLeak:
    """Refuse a bundle that gives away protected weights or this machine, or that holds more than its manifest lists.

    Memory holds one tensor of the bundle at a time, or the output weights of one MLP.

    Args:
        bundle: Folder of the bundle.
        files: sha256 of every file that the manifest lists, by name.
        original: Folder of the original.
        source_files: sha256 of every file of the original, by name.
        layers: How each MLP was converted.
        public: Texts that the config means to publish.
        machine: What the files must not say about the machine that made them.
        progress: Receives the number of MLPs that are known and tensors that are searched, and the number of all.

    Raises:
        GateRejected: The bundle leaks. The message names file and tensor.
    """
    _require_only(bundle, files)
    for name, sha256 in files.items():
        _require_discreet(bundle, name, machine, public, source_files.get(name) == sha256)
    source = Original(original)
    weights = output_weights(source)
    tensors = [(file, name) for file in files if file.endswith(".safetensors") for name in _names(bundle / file)]
    steps = len(source.mlps) + len(tensors)
    lines = ProtectedLines(source.mlps, weights, lambda known, _all: progress(known, steps))
    terms = {f"{layer.path}.terms.weight": layer for layer in layers}
    mlp_of = {mlp.path: mlp for mlp in source.mlps}
    for done, (file, name) in enumerate(tensors, start=len(source.mlps) + 1):
        what = f"{bundle / file}: tensor {name}"
        with safe_open(bundle / file, framework="pt") as stored:
            if name in terms:
                layer = terms[name]
                _require_terms(what, stored.get_slice(name), layer, weights(mlp_of[layer.path]))
            else:
                _refuse(lines.look_into(what, stored.get_tensor(name)))
        progress(done, steps)
    _refuse(lines.proven())
    return NoLeak(files=len(files), tensors=len(tensors), lines=lines.count)


def _require_only(bundle: Path, files: Mapping[str, str]) -> None:
    found = sha256_of_tree(bundle)
    for name in sorted(found.keys() | files.keys()):
        if name not in files:
            raise GateRejected(f"{bundle / name} is not in the manifest", _REMEDY)
        if name not in found:
            raise GateRejected(f"{bundle / name} is missing; the manifest lists it", "run again to assemble it anew")
        if found[name] != files[name]:
            raise GateRejected(
                f"{bundle / name} does not have the bytes that were assembled", "run again to assemble it anew"
            )
        if (bundle / name).is_symlink():
            raise GateRejected(f"{bundle / name} is a link, not a file", _REMEDY)


def _require_discreet(bundle: Path, name: str, machine: Machine, public: Sequence[str], copied: bool) -> None:
    path = bundle / name
    with path.open("rb") as stream:
        start = stream.read(8)
    if path.suffix in _PICKLES or _is_pickle(start) or zipfile.is_zipfile(path):
        raise GateRejected(f"{path} is a pickle or an archive; loading one can run any code", _REMEDY)
    content = read_header(path).text if path.suffix == ".safetensors" else path.read_bytes()
    found = leak_in(name, content, machine, public, copied)
    if found:
        raise GateRejected(f"{path} gives away {found}", _REMEDY)


def _is_pickle(start: bytes) -> bool:
    """Whether bytes begin like a pickle of protocol 2 to 5."""
    return start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def _require_terms(what: str, stored: Any, layer: LayerConversion, down: Tensor) -> None:
    """Require terms [H, K] of the shape that was made, without output weights of protected neurons as trained.

    The terms are read in slices. `down` [H, F] are the output weights of the original.
    """
    shape = tuple(stored.get_shape())
    if shape != (len(down), layer.columns):
        raise GateRejected(f"{what} has shape {shape}; {(len(down), layer.columns)} was made", _REMEDY)
    end, bare = layer.columns - layer.clear, 0
    # A few rows clear nearly every layer; more are read only if these do not. Each slice is judged on its own, because
    # in a marked layer hardly any column is as trained over its whole length. Rows in which no protected neuron has
    # anything of its own, as where rows are pruned, clear nothing.
    for row in range(0, len(down), _LOOKED_AT_ROWS):
        rows = slice(row, row + _LOOKED_AT_ROWS)
        found, columns = bare_columns(down[rows], stored[rows][:, :end])
        if columns <= layer.clear:
            continue
        if found <= _BARE_BY_CHANCE * (columns - layer.clear):
            return
        bare = max(bare, found)
    if bare:
        raise GateRejected(f"{what} holds the output weights of {bare} neurons of {layer.path} as trained", _REMEDY)


def _refuse(found: Sequence[Found]) -> None:
    for leak in found:
        raise GateRejected(
            f"{leak.tensor} holds protected weights of {leak.mlp}; it contains {leak.lines} rows and columns of them",
            _REMEDY,
        )


def _names(path: Path) -> Iterator[str]:
    with safe_open(path, framework="pt") as file:
        yield from sorted(file.keys())
