"""Tensors of a source that the model does not use: refused by name, unless the owner says that they may be left out."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from taylor_ops.errors import BadInput

_NAMED = 4


def require_used(place: Path, unused: Sequence[str], ignore: Sequence[str]) -> tuple[str, ...]:
    """The tensors that are left out because a pattern of `source.ignore` names them.

    Args:
        place: The folder or file that has the tensors.
        unused: Names of all tensors that the model does not use, and that are not derived from others.
        ignore: Patterns as of file names: `*` stands for any characters.

    Raises:
        BadInput: A tensor is not used and no pattern names it, or a pattern names none of them.
    """
    left_out = tuple(sorted(name for name in unused if any(fnmatchcase(name, pattern) for pattern in ignore)))
    rest = sorted(set(unused) - set(left_out))
    if rest:
        raise BadInput(
            f"{place}: the model does not use {some_of(rest)}, and a release would drop what it does not use",
            "correct the config of the model if it should use them, or name them in `source.ignore` to leave them out",
        )
    idle = next((pattern for pattern in ignore if not any(fnmatchcase(name, pattern) for name in unused)), None)
    if idle is not None:
        raise BadInput(f"{place}: `{idle}` in `source.ignore` names no tensor that is left out", "remove the pattern")
    return left_out


def some_of(names: Sequence[str]) -> str:
    """The first few of some tensors, and how many there are, in words."""
    shown = ", ".join(names[:_NAMED])
    return f"tensor {shown}" if len(names) == 1 else f"{len(names)} tensors ({shown}{', ...' * (len(names) > _NAMED)})"
