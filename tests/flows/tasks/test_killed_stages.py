"""What a killed stage leaves behind beside its result, and when that is removed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest

from flows.run.release_run import R, ReleaseRun, Work
from flows.tasks import proof
from taylor_ops.config_file.read import read
from taylor_ops.stages import Stage
from taylor_ops.storage.artifacts import Artifacts
from taylor_ops.storage.stage_cache import kept_beside, kept_for
from tests.support import release_example as example
from tests.taylor_ops.conftest import silent


class Killed(Exception):
    """Ends a stage in the middle of its work."""


class Unmeasured(ReleaseRun):
    """A release whose stages do their work under their keys, and nothing else."""

    def subject(self, *_found: object) -> Any:
        return None

    def perform(self, stage: Stage[R], inputs: Mapping[str, Any], work: Work[R], **_named: object) -> R:
        folder = self.place.stage(stage.name)
        with kept_for(stage.key(inputs), folder):
            return work(folder, silent)


def test_what_a_killed_validation_or_audit_leaves_is_removed_with_what_the_stage_kept(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(place: Path) -> NoReturn:
        place.mkdir(parents=True)
        (place / "weights").write_text("of a layer")
        raise Killed

    one = Unmeasured(read(tiny_config, {}), Artifacts(tmp_path / "a"))
    source, ranges, converted = example.source(), example.captured(), example.converted()
    known = (source, converted, example.exactness())
    monkeypatch.setattr(proof, "require_as_planned", lambda *_given: None)
    monkeypatch.setattr(proof.exact, "validate", lambda *given: killed(given[-1]))
    monkeypatch.setattr(proof, "attack", lambda *given: killed(given[-1].work))
    for stage, found in ((proof.validate, (source, ranges, converted)), (proof.audit, known)):
        with pytest.raises(Killed):
            stage.fn(one, *found)
    for stage in ("validate", "audit"):
        folder = one.place.stage(stage)
        left = [path for path in one.place.stages.rglob("weights") if path.is_relative_to(kept_beside(folder))]
        assert len(left) == 1
        with kept_for("another", folder):
            assert not left[0].exists()
    assert not list(one.place.stages.iterdir())
