"""Run an original one decoder layer at a time, reading the weights of that layer only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from transformers import AutoModelForCausalLM

from taylor_ops.errors import BadInput
from taylor_ops.machine.device_errors import is_of_the_device
from taylor_ops.model.architectures import Mlp
from taylor_ops.model.original import Original
from taylor_ops.model.shards import save_tensors

State = dict[str, Tensor]
"""What one batch brings from layer to layer: `hidden` [B, T, H] and, under `<number>.<key>`, what some layers leave for
later ones to read, such as keys and values."""

_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)


class Layerwise:
    """An original of which the weights of one decoder layer at a time are on the device.

    model: the causal LM of transformers. Its parameters have no data but while they are at work; its other buffers do.
    layers: how many decoder layers it has.
    """

    def __init__(self, original: Original, dtype: torch.dtype, device: torch.device) -> None:
        self._original, self._dtype, self._device = original, dtype, device
        with init_empty_weights(include_buffers=False):
            self.model: Any = AutoModelForCausalLM.from_config(original.config, dtype=dtype)
        self.model.eval()
        for name, buffer in list(self.model.named_buffers()):
            owner, _, own = name.rpartition(".")
            setattr(self.model.get_submodule(owner), own, buffer.to(device))
        self._path = _path_of_layers(original)
        self._layers: Any = self.model.get_submodule(self._path)
        self.layers = len(self._layers)
        self._calls: list[list[_Call]] = []
        self._own: list[Path | None] = []

    def enter(self, batches: Sequence[Tensor], folder: Path) -> Iterator[State]:
        """What each batch of ids [B, T] brings to the first layer; to be read to the end before any layer runs.

        How the layers are called is noted on the way. What differs from batch to batch of one shape goes to `folder`.
        """
        inside = f"{self._path}."
        names = [name for name in self.model.state_dict() if not name.startswith(inside) and self._in_base(name)]
        first: dict[torch.Size, list[_Call]] = {}
        with self._loaded(self.model, "", names):
            for number, ids in enumerate(batches):
                hidden, calls = self._recorded(ids.to(self._device), ids.shape not in first)
                known = first.setdefault(ids.shape, calls)
                own = {} if known is calls else _differing(known, calls)
                path = folder / f"arguments-{number}.safetensors" if own else None
                if path is not None:
                    save_tensors({name: value.contiguous() for name, value in own.items()}, path)
                self._calls.append(known)
                self._own.append(path)
                yield {"hidden": hidden.contiguous()}

    def _in_base(self, name: str) -> bool:
        return name.startswith(f"{self.model.base_model_prefix}.")

    @contextmanager
    def layer(self, number: int) -> Iterator[list[Mlp]]:
        """While open, the weights of one layer are there; gives the MLPs in it."""
        path = f"{self._path}.{number}"
        layer = self._layers[number]
        with self._loaded(layer, f"{path}.", list(layer.state_dict())):
            yield [mlp for mlp in self._original.mlps if f"{mlp.module}.".startswith(f"{path}.")]

    @contextmanager
    def _loaded(self, module: nn.Module, prefix: str, names: Sequence[str]) -> Iterator[None]:
        empty = {name: tensor for name, tensor in module.state_dict().items() if name in set(names)}
        tied = self.model.all_tied_weights_keys
        read = {name: self._read(tied.get(prefix + name, prefix + name)) for name in names}
        module.load_state_dict(read, strict=False, assign=True)
        del read
        try:
            yield
        finally:
            module.load_state_dict(empty, strict=False, assign=True)

    def _read(self, name: str) -> Tensor:
        tensor = self._original.tensor(name)
        return tensor.to(self._device, self._dtype if tensor.is_floating_point() else tensor.dtype)

    def run(self, number: int, batch: int, state: State) -> State:
        """What layer `number`, which must be open, makes of what a batch brings to it."""
        call, own = self._calls[batch][number], self._own[batch]
        values = list(call.values)
        if own is not None:
            with safe_open(own, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    layer, _, place = name.partition(".")
                    if int(layer) == number:
                        values[int(place)] = file.get_tensor(name).to(self._device)
        left: list[Any] = []
        for place, value in enumerate(values):
            if isinstance(value, MutableMapping):
                values[place] = _filled(type(value)(), len(left), state)
                left.append(values[place])
        output = call.made(self._layers[number], state["hidden"], values)
        hidden = output[0] if isinstance(output, tuple) else output
        brought = {f"{which}.{key}": held for which, mapping in enumerate(left) for key, held in mapping.items()}
        after = {f"{name}.{place}": value for name, held in brought.items() for place, value in enumerate(held)}
        return {name: value.contiguous() for name, value in ({"hidden": hidden} | after).items()}

    def _recorded(self, ids: Tensor, shape_is_new: bool) -> tuple[Tensor, list[_Call]]:
        """The hidden states [B, T, H] that enter the first layer, and how each layer is called on a batch of ids.

        Raises `BadInput` where that depends on what layers return: then they cannot be run one at a time.
        """
        base = self.model.base_model
        try:
            entering, calls = _with_stand_ins(base, self._layers, ids, lambda hidden: hidden)
            if shape_is_new:
                _, others = _with_stand_ins(base, self._layers, ids, torch.zeros_like)
                if _differing(calls, others):
                    raise _NotOneByOne
        except _NotOneByOne as error:
            raise BadInput(
                f"architecture `{self._original.architecture.model_type}`: its decoder layers do not just take what "
                "the layer before gives, so that they cannot be run one at a time",
                "release a model of another architecture",
            ) from error
        return entering, calls


def _path_of_layers(original: Original) -> str:
    paths = set()
    for mlp in original.mlps:
        parts = mlp.module.split(".")
        paths.add(".".join(parts[: next(place for place, part in enumerate(parts) if part.isdigit())]))
    if len(paths) != 1:
        raise BadInput(
            f"the MLPs of this model are in several lists of layers: {', '.join(sorted(paths))}",
            "release a model with one list of decoder layers",
        )
    return paths.pop()


class _NotOneByOne(Exception):
    """The layers are not called one after the other, each with what the one before it returned."""


@dataclass(frozen=True)
class _Call:
    """How a layer is called. values: all tensors and other values in its arguments but the hidden states."""

    values: list[Any]
    structure: Any
    names: tuple[str, ...]
    by_name: bool

    @classmethod
    def of(cls, arguments: tuple[Any, ...], named: dict[str, Any], by_name: bool) -> _Call:
        values, structure = pytree.tree_flatten([*arguments, *named.values()], is_leaf=_is_shared)
        for value in values:
            if not isinstance(value, (Tensor, *_PLAIN)) and not _is_shared(value):
                raise BadInput(
                    f"a decoder layer of this model is given an object `{type(value).__name__}`, in which layers may "
                    "hand on what this release does not see",
                    "release a model whose layers are given tensors",
                )
        return cls(values, structure, tuple(named), by_name)

    def made(self, layer: nn.Module, hidden: Tensor, values: list[Any]) -> Any:
        """What the layer returns for hidden states and `values` in place of those that were noted."""
        arguments = pytree.tree_unflatten(values, self.structure)
        count = len(arguments) - len(self.names)
        named = dict(zip(self.names, arguments[count:], strict=True))
        if self.by_name:
            return layer(*arguments[:count], hidden_states=hidden, **named)
        return layer(hidden, *arguments[:count], **named)


def _is_shared(value: Any) -> bool:
    """Whether layers leave something for later ones in `value`: no layer has run yet, so that nothing is in it."""
    return isinstance(value, MutableMapping) and not value


def _with_stand_ins(
    base: Any, layers: Any, ids: Tensor, returned: Callable[[Tensor], Tensor]
) -> tuple[Tensor, list[_Call]]:
    """Run the model with layers that note how they are called and return `returned` of their hidden states.

    Raises `_NotOneByOne` unless each is called once, in order, with just what the one before it returned.
    """
    for as_tuple in (False, True):
        noted = _StandIns(returned, as_tuple)
        for number, layer in enumerate(layers):
            layer.forward = partial(noted.forward, number)
        try:
            base(input_ids=ids, use_cache=False)
        except (_NotOneByOne, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
            if is_of_the_device(error):
                raise
            # Some models take a tuple from their layers; what a tensor in its place leads to can be any of these.
            if as_tuple:
                raise _NotOneByOne from error
            continue
        finally:
            for layer in layers:
                del layer.forward
        if len(noted.calls) == len(layers):
            assert noted.entering is not None
            return noted.entering, noted.calls
    raise _NotOneByOne


class _StandIns:
    """What stands in for the layers of a model while it is noted how they are called."""

    def __init__(self, returned: Callable[[Tensor], Tensor], as_tuple: bool) -> None:
        self.calls: list[_Call] = []
        self.entering: Tensor | None = None
        self._returned, self._as_tuple = returned, as_tuple
        self._last: tuple[Tensor, Tensor] | None = None

    def forward(self, number: int, *arguments: Any, **named: Any) -> Any:
        """In place of that of layer `number`."""
        by_name = "hidden_states" in named
        hidden = named.pop("hidden_states") if by_name else arguments[0]
        if self.entering is None:
            self.entering = hidden
        if number != len(self.calls) or not self._is_what_was_returned(hidden):
            raise _NotOneByOne
        self.calls.append(_Call.of(arguments if by_name else arguments[1:], named, by_name))
        self._last = self._returned(hidden), self._returned(hidden).clone()
        return (self._last[0],) if self._as_tuple else self._last[0]

    def _is_what_was_returned(self, hidden: Any) -> bool:
        if self._last is None:
            return True
        given, its_values = self._last
        return isinstance(hidden, Tensor) and _same_place(hidden, given) and torch.equal(hidden, its_values)


def _same_place(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()


def _differing(known: list[_Call], calls: list[_Call]) -> dict[str, Tensor]:
    """Tensors under `<layer>.<place>` that are not those of `known`; `_NotOneByOne` where anything else differs."""
    differing: dict[str, Tensor] = {}
    for number, (one, other) in enumerate(zip(known, calls, strict=True)):
        if (one.structure, one.names, one.by_name) != (other.structure, other.names, other.by_name):
            raise _NotOneByOne
        for place, (before, value) in enumerate(zip(one.values, other.values, strict=True)):
            if isinstance(value, Tensor) and isinstance(before, Tensor):
                if value is not before and not torch.equal(value, before):
                    differing[f"{number}.{place}"] = value
            elif type(value) is not type(before) or value != before:
                raise _NotOneByOne
    return differing


def _filled(mapping: Any, which: int, state: State) -> Any:
    """`mapping` with the tuples of tensors that earlier layers left in it, by their names in the state of a batch."""
    for name, tensor in state.items():
        if name.startswith(f"{which}."):
            key = name.partition(".")[2].rpartition(".")[0]
            mapping[key] = (*mapping.get(key, ()), tensor)
    return mapping
