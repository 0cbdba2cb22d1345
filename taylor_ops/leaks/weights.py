"""Find protected weights in tensors of a bundle, in any order of rows and columns, scale, sign and data type.

Every row and every column of a protected matrix is a line. A line has four features that do not change with order,
scale or sign. Windows of the same length slide over the tensors of the bundle, along memory and along columns. A window
with the features of a line is compared with the line value by value, both sorted.

Lines that tell nothing, such as zero ones, and lines that repeat another one are left out (`telling`). A line of fewer
than four sizes of values, as in ternary weights, is found only with its own values in order: sorted, it is alike in all
lines of its matrix, so that only all lines together could tell it. Not every window is tried: enough are drawn that 16
lines of a matrix are expected among them, and three lines prove that the matrix is there, or all if it has fewer. A
matrix is not found if the bundle contains none of its rows and columns completely.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from taylor_ops.leaks.telling import first_of_each, is_told_by_order, telling
from taylor_ops.model.architectures import Mlp
from taylor_ops.model.original import Original
from taylor_ops.progress import Progress, silent

Weights = Callable[[Mlp], Tensor]

_LINES_SEEN = 16
_LINES_THAT_PROVE = 3
_FEW_CHUNKS = 64
# Six standard deviations of the change that rounding to bfloat16 makes to each feature. The last one is relative.
_NEAR = torch.tensor([0.006, 0.006, 0.012])
_NEAR_SPREAD = 0.04
# Rounding to bfloat16 moves the sorted values of a line by 0.0014 of their mean. Those of another line differ by 0.005
# or more.
_SAME = 0.0025
_CELLS = 1 << 20
_BATCH_VALUES = 1 << 20
_PENDING_VALUES = 16 << 20


@dataclass
class Found:
    """Protected weights in a tensor.

    Attributes:
        tensor: The name that `look_into` was given for it.
        mlp: Path of the MLP that the weights belong to.
        lines: How many lines of the MLP the tensor contains.
    """

    tensor: str
    mlp: str
    lines: int


@dataclass
class _Index:
    """The N lines of one length.

    Attributes:
        length: Number of values of each line.
        per_matrix: The least number of lines of this length that one matrix has.
        features: [N, 4].
        mlp: Index of the MLP of each line, [N].
        number: Twice the row or column number of each line, plus one if it is a column, [N].
        keys: Cells of the features, sorted. Each line has several, because rounding may move it into the next cell.
        line: Index of the line of each key.
    """

    length: int
    per_matrix: int
    features: Tensor
    mlp: Tensor
    number: Tensor
    keys: Tensor = field(init=False)
    line: Tensor = field(init=False)

    def __post_init__(self) -> None:
        corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
        keys = torch.cat([_keys(self.features[:, :3] + corner * _NEAR) for corner in corners])
        self.keys, order = keys.sort()
        self.line = torch.arange(len(self.features)).repeat(len(corners))[order]

    def near(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Windows and lines with equal features up to rounding: rows of `features` [M, 4] and rows of the index."""
        keys = _keys(features[:, :3])
        first, end = (torch.searchsorted(self.keys, keys, right=right) for right in (False, True))
        window = torch.repeat_interleave(torch.arange(len(keys)), end - first)
        started = torch.repeat_interleave(torch.cumsum(end - first, 0) - (end - first), end - first)
        line = self.line[first[window] + torch.arange(len(window)) - started]
        difference = (features[window] - self.features[line]).abs()
        near = (difference[:, :3] <= _NEAR).all(-1)
        near &= difference[:, 3] <= _NEAR_SPREAD / math.sqrt(self.length) * self.features[line, 3]
        pairs = torch.unique(torch.stack([window[near], line[near]]), dim=1)
        return pairs[0], pairs[1]


class ProtectedLines:
    """The lines of all protected matrices, and the windows of a bundle that may be one of them.

    Args:
        mlps: The MLPs whose output weights [H, F] are protected.
        weights: Reads the output weights of one MLP.
        progress: Receives the number of MLPs whose lines are known, and the number of all.
    """

    def __init__(self, mlps: Sequence[Mlp], weights: Weights, progress: Progress = silent) -> None:
        self._mlps, self._weights = mlps, weights
        parts: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = defaultdict(list)
        fewest: dict[int, int] = {}
        self._known = [0] * len(mlps)
        for place, mlp in enumerate(mlps):
            down = weights(mlp).float()
            for direction, lines in enumerate((down, down.T.contiguous())):
                length = lines.shape[1]
                rows = telling(lines).nonzero()[:, 0]
                features = _features(_sums(lines[rows]), length)
                distinct = first_of_each(features)
                count = len(distinct)
                if count:
                    numbers = 2 * rows[distinct] + direction
                    parts[length].append((features[distinct], torch.full((count,), place), numbers))
                    fewest[length] = min(fewest.get(length, count), count)
                self._known[place] += count
            progress(place + 1, len(mlps))
        self._indices = [
            _Index(length, fewest[length], *(torch.cat(part) for part in zip(*blocks, strict=True)))
            for length, blocks in sorted(parts.items())
        ]
        self._draw = torch.Generator().manual_seed(0)
        self._pending: dict[int, list[tuple[str, int, Tensor]]] = defaultdict(list)
        self._pending_values = 0
        self._seen: dict[tuple[str, int], set[int]] = defaultdict(set)

    @property
    def count(self) -> int:
        """How many lines there are."""
        return sum(len(index.features) for index in self._indices)

    def look_into(self, name: str, tensor: Tensor) -> list[Found]:
        """Note the windows of a tensor that may be protected lines.

        The notes are compared with the lines only when many have gathered. Returns what is proven by then, of all
        tensors so far.
        """
        values = tensor.detach().reshape(-1)
        rows, columns = tensor.shape[-2:] if tensor.dim() > 1 else (1, tensor.numel())
        for index in self._indices:
            if len(values) < index.length:
                continue
            self._search(name, values, index, None)
            if rows >= index.length:
                self._search(name, values, index, (rows, columns))
        return self.proven() if self._pending_values > _PENDING_VALUES else []

    def _search(self, name: str, values: Tensor, index: _Index, shape: tuple[int, int] | None) -> None:
        n = index.length
        starts = len(values) - n + 1
        chunks = torch.arange(-(-starts // n))
        share = _LINES_SEEN / index.per_matrix
        if share < 1 and len(chunks) > _FEW_CHUNKS:
            chunks = chunks[torch.rand(len(chunks), generator=self._draw) < share]
        for batch in torch.split(chunks, max(1, _BATCH_VALUES // (2 * n))):
            places = (batch[:, None] * n + torch.arange(2 * n - 1)).clamp(max=len(values) - 1)
            chunk = values[_along_columns(places, *shape) if shape else places].float()
            features = _features(_window_sums(chunk, n), n)
            windows, lines = index.near(features.reshape(-1, 4))
            for window, line in zip(windows.tolist(), lines.tolist(), strict=True):
                start = window % n
                self._pending[int(index.mlp[line])].append(
                    (name, int(index.number[line]), chunk[window // n, start : start + n].clone())
                )
                self._pending_values += n

    def proven(self) -> list[Found]:
        """Compare the noted windows with the lines. Returns every tensor with the lines that prove an MLP."""
        for place, noted in self._pending.items():
            down = self._weights(self._mlps[place]).float()
            for name, number, window in noted:
                line = down[:, number // 2] if number % 2 else down[number // 2]
                if _same_values(window, line):
                    self._seen[name, place].add(number)
        self._pending.clear()
        self._pending_values = 0
        return [
            Found(name, self._mlps[place].path, len(numbers))
            for (name, place), numbers in self._seen.items()
            if len(numbers) >= min(_LINES_THAT_PROVE, self._known[place])
        ]


def output_weights(original: Original) -> Weights:
    """A function that reads the output weights [H, F] of an MLP of `original`."""
    return lambda mlp: original.weights(mlp).down


def _sums(lines: Tensor) -> Iterator[Tensor]:
    """The five sums over each of the lines [N, n] that `_features` needs."""
    return (part.sum(-1, dtype=torch.float64) for part in _parts(lines))


def _window_sums(lines: Tensor, length: int) -> Iterator[Tensor]:
    """The sums of `_sums` over every window of `length` in each of the lines [N, M]: [N, M - length + 1] each."""
    for part in _parts(lines):
        total = part.cumsum(-1, dtype=torch.float64)
        window = total[:, length - 1 :].clone()
        window[:, 1:] -= total[:, :-length]
        yield window


def _parts(lines: Tensor) -> Iterator[Tensor]:
    size = lines.abs()
    yield size
    yield lines
    yield lines.square()
    root = size.sqrt_()
    yield root
    yield root * lines.sign()


def _features(sums: Iterator[Tensor], length: int) -> Tensor:
    """Four numbers [..., 4] that do not change with order, scale or sign. They are NaN for a window of zeros."""
    size, total, squares, root, signed_root = sums
    scale = size.clamp(min=0).sqrt()
    return torch.stack(
        [
            root / scale,
            signed_root.abs() / scale,
            total.abs() / size * math.sqrt(length),
            squares / size.square() * length,
        ],
        dim=-1,
    ).float()


def _keys(features: Tensor) -> Tensor:
    """The cell of each row of features [N, 3]. Rows that are not finite get a cell that no line has."""
    cells = (features / (2 * _NEAR)).nan_to_num(-3, -3, -3).clamp(-3, _CELLS - 4).floor().long() + 3
    return (cells[:, 0] * _CELLS + cells[:, 1]) * _CELLS + cells[:, 2]


def _along_columns(places: Tensor, rows: int, columns: int) -> Tensor:
    """Turn `places` in a column-by-column reading of every [rows, columns] matrix into places in memory."""
    matrix, inside = places // (rows * columns), places % (rows * columns)
    return (matrix * rows + inside % rows) * columns + inside // rows


def _same_values(window: Tensor, line: Tensor) -> bool:
    if not is_told_by_order(line):
        window, line = window.sort().values, line.sort().values
        reverse = -line.flip(0)
    else:
        reverse = -line
    scaled = window / window.abs().sum()
    return any(float((scaled - other / other.abs().sum()).abs().sum()) <= _SAME for other in (line, reverse))
