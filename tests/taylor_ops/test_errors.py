"""Errors name what a person knows, not the temporary folder that holds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from taylor_ops.errors import BadInput, GateRejected, ReleaseError, told_as


@pytest.mark.parametrize("kind", [BadInput, GateRejected])
def test_a_temporary_folder_is_called_by_what_it_holds(tmp_path: Path, kind: type[ReleaseError]) -> None:
    with pytest.raises(kind) as caught, told_as(tmp_path, "org/model@v1"):
        raise kind(f"{tmp_path / 'config.json'} is damaged", f"look into {tmp_path}")
    assert str(caught.value) == "org/model@v1/config.json is damaged\nlook into org/model@v1"
    assert caught.value.args == ("org/model@v1/config.json is damaged", "look into org/model@v1")
