"""Run an original one decoder layer at a time, with only the weights of that layer in memory."""

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
"""What one batch brings from layer to layer.

`hidden` [B, T, H] are its hidden states. `<number>.<key>.<place>` are tensors that some layers leave for later layers,
such as keys and values.
"""

_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)


class Layerwise:
    """An original with the weights of one decoder layer at a time on the device.

    Attributes:
        model: The causal LM of transformers. Its parameters have data only while they are at work. Its other buffers
            always have data.
        layers: How many decoder layers the model has.
    """

    def __init__(self, original: Original, dtype: torch.dtype, device: torch.device) -> None:
        self._original, self._dtype, self._device = original, dtype, device
        with init_empty_weights(include_buffers=False):
            self.model: Any = AutoModelForCausalLM.from_config(original.config, dtype=dtype, trust_remote_code=False)
        self.model.eval()
        for name, buffer in list(self.model.named_buffers()):
            owner, _, attribute = name.rpartition(".")
            setattr(self.model.get_submodule(owner), attribute, buffer.to(device))
        self._path = _path_of_layers(original)
        self._layers: Any = self.model.get_submodule(self._path)
        self.layers = len(self._layers)
        self._calls: list[list[_Call]] = []
        self._argument_files: list[Path | None] = []

    def enter(self, batches: Sequence[Tensor], folder: Path) -> Iterator[State]:
        """Yield the state that each batch of ids [B, T] brings to the first layer.

        This records how the layers are called, so read it to the end before any layer runs. Arguments that differ
        between batches of one shape are written to `folder`.
        """
        inside = f"{self._path}."
        names = [name for name in self.model.state_dict() if not name.startswith(inside) and self._in_base(name)]
        first: dict[torch.Size, list[_Call]] = {}
        with self._loaded(self.model, "", names):
            for number, ids in enumerate(batches):
                hidden, calls = self._recorded(ids.to(self._device), ids.shape not in first)
                recorded = first.setdefault(ids.shape, calls)
                differing = {} if recorded is calls else _differing(recorded, calls)
                path = folder / f"arguments-{number}.safetensors" if differing else None
                if path is not None:
                    save_tensors({name: value.contiguous() for name, value in differing.items()}, path)
                self._calls.append(recorded)
                self._argument_files.append(path)
                yield {"hidden": hidden.contiguous()}

    def _in_base(self, name: str) -> bool:
        return name.startswith(f"{self.model.base_model_prefix}.")

    @contextmanager
    def layer(self, number: int) -> Iterator[list[Mlp]]:
        """While open, the weights of one layer are loaded; yields the MLPs of this layer."""
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
        """Run layer `number`, which must be open, on the state of a batch; returns the state for the next layer."""
        call, argument_file = self._calls[batch][number], self._argument_files[batch]
        values = list(call.values)
        if argument_file is not None:
            with safe_open(argument_file, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    layer, _, place = name.partition(".")
                    if int(layer) == number:
                        values[int(place)] = file.get_tensor(name).to(self._device)
        mappings: list[Any] = []
        for place, value in enumerate(values):
            if isinstance(value, MutableMapping):
                values[place] = _filled(type(value)(), len(mappings), state)
                mappings.append(values[place])
        output = call.made(self._layers[number], state["hidden"], values)
        hidden = output[0] if isinstance(output, tuple) else output
        left = {f"{which}.{key}": tensors for which, mapping in enumerate(mappings) for key, tensors in mapping.items()}
        after = {f"{name}.{place}": tensor for name, tensors in left.items() for place, tensor in enumerate(tensors)}
        return {name: value.contiguous() for name, value in ({"hidden": hidden} | after).items()}

    def _recorded(self, ids: Tensor, shape_is_new: bool) -> tuple[Tensor, list[_Call]]:
        """The hidden states [B, T, H] that enter the first layer, and how each layer is called on a batch of ids.

        Raises `BadInput` if this depends on what layers return, because they cannot be run one at a time then.
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
                f"architecture `{self._original.architecture.model_type}`: the model does not simply pass the "
                "output of each decoder layer to the next, so the layers cannot be run one at a time",
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
    """The layers are not called one after the other, each with exactly the output of the layer before."""


@dataclass(frozen=True)
class _Call:
    """How a layer is called.

    Attributes:
        values: All tensors and other values in its arguments, except the hidden states.
        structure: The pytree of its arguments, which `values` fill.
        names: Names of its keyword arguments, except the hidden states.
        by_name: Whether the hidden states are a keyword argument.
    """

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
                    f"a decoder layer of this model takes an object `{type(value).__name__}`, through which layers may "
                    "pass on values that the capture does not see",
                    "release a model whose layers take tensors",
                )
        return cls(values, structure, tuple(named), by_name)

    def made(self, layer: nn.Module, hidden: Tensor, values: list[Any]) -> Any:
        """Call the layer with these hidden states and `values` in place of the recorded ones."""
        arguments = pytree.tree_unflatten(values, self.structure)
        count = len(arguments) - len(self.names)
        named = dict(zip(self.names, arguments[count:], strict=True))
        if self.by_name:
            return layer(*arguments[:count], hidden_states=hidden, **named)
        return layer(hidden, *arguments[:count], **named)


def _is_shared(value: Any) -> bool:
    """Whether layers share `value` to leave tensors for later layers. It is empty, since no layer has run yet."""
    return isinstance(value, MutableMapping) and not value


def _with_stand_ins(
    base: Any, layers: Any, ids: Tensor, returned: Callable[[Tensor], Tensor]
) -> tuple[Tensor, list[_Call]]:
    """Run the model with stand-ins for its layers, which record their calls and return `returned(hidden states)`.

    Raises `_NotOneByOne` unless each is called once, in order, with exactly the output of the one before.
    """
    for as_tuple in (False, True):
        stand_ins = _StandIns(returned, as_tuple)
        for number, layer in enumerate(layers):
            layer.forward = partial(stand_ins.forward, number)
        try:
            base(input_ids=ids, use_cache=False)
        except (_NotOneByOne, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
            if is_of_the_device(error):
                raise
            # Some models expect a tuple from their layers, and may raise any of these errors for a tensor in its place.
            if as_tuple:
                raise _NotOneByOne from error
            continue
        finally:
            for layer in layers:
                del layer.forward
        if len(stand_ins.calls) == len(layers):
            assert stand_ins.entering is not None
            return stand_ins.entering, stand_ins.calls
    raise _NotOneByOne


class _StandIns:
    """Stand-ins for the layers of a model, which record how the model calls them.

    Attributes:
        calls: How each layer was called, in order.
        entering: The hidden states that the first layer was called with.
    """

    def __init__(self, returned: Callable[[Tensor], Tensor], as_tuple: bool) -> None:
        self.calls: list[_Call] = []
        self.entering: Tensor | None = None
        self._returned, self._as_tuple = returned, as_tuple
        self._last: tuple[Tensor, Tensor] | None = None

    def forward(self, number: int, *arguments: Any, **named: Any) -> Any:
        """Stand in for the `forward` of layer `number`."""
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
        returned, its_values = self._last
        return isinstance(hidden, Tensor) and _same_place(hidden, returned) and torch.equal(hidden, its_values)


def _same_place(first: Tensor, second: Tensor) -> bool:
    same_start = first.data_ptr() == second.data_ptr()
    return same_start and first.shape == second.shape and first.stride() == second.stride()


def _differing(recorded: list[_Call], calls: list[_Call]) -> dict[str, Tensor]:
    """The tensors of `calls` that differ from `recorded`, by `<layer>.<place>`.

    Raises `_NotOneByOne` if anything other than a tensor differs.
    """
    differing: dict[str, Tensor] = {}
    for number, (earlier, later) in enumerate(zip(recorded, calls, strict=True)):
        if (earlier.structure, earlier.names, earlier.by_name) != (later.structure, later.names, later.by_name):
            raise _NotOneByOne
        for place, (before, value) in enumerate(zip(earlier.values, later.values, strict=True)):
            if isinstance(value, Tensor) and isinstance(before, Tensor):
                if value is not before and not torch.equal(value, before):
                    differing[f"{number}.{place}"] = value
            elif type(value) is not type(before) or value != before:
                raise _NotOneByOne
    return differing


def _filled(mapping: Any, which: int, state: State) -> Any:
    """Fill `mapping` from the state of a batch with the tuples of tensors that earlier layers left in it."""
    for name, tensor in state.items():
        if name.startswith(f"{which}."):
            key = name.partition(".")[2].rpartition(".")[0]
            mapping[key] = (*mapping.get(key, ()), tensor)
    return mapping
