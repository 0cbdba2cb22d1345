"""The shortest valid release config, and what the reader says about another."""

from __future__ import annotations

from pathlib import Path

import pytest

from taylor_ops.config_file.read import ConfigErrors, read

COMMIT = "0123456789abcdef0123456789abcdef01234567"
VALID = f"""\
name: tiny
version: 1.0.0
source:
  kind: hub
  repo_id: owner/tiny
  revision: {COMMIT}
card:
  license: mit
publish:
  repo_id: owner/tiny-taylor
"""
VALID_LINES = len(VALID.splitlines())


def written(folder: Path, text: str | bytes) -> Path:
    """The file of a config in a folder."""
    path = folder / "release.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def errors_of(folder: Path, text: str | bytes, overrides: dict[str, str] | None = None) -> list[str]:
    """The lines of the errors of a config, without the folder."""
    with pytest.raises(ConfigErrors) as caught:
        read(written(folder, text), overrides or {})
    return [line.removeprefix(f"{folder}/") for line in caught.value.lines]
