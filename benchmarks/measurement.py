"""What every benchmark measures, and how old a result is: the key of that code, the config, and the date.

A result is stale if the code or the config that it measured has changed since. `MEASURES` says what each benchmark
measures. Nothing here imports torch, because the linters ask for the age of every result.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import yaml

from taylor_ops.storage.files import canonical_json, read_json, write_text
from taylor_ops.storage.stage_cache import code_of, sources_of

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]
ENTRY = "measurement"
"""Key of a result under which its age stands."""


@dataclass(frozen=True)
class Measured:
    """What a benchmark measures.

    Attributes:
        modules: modules, or packages with all modules below them; what they import of taylor_ops counts too
        config: the release config that it reads, relative to the repository, or None
    """

    modules: tuple[str, ...]
    config: str | None = None

    def key(self) -> str:
        """Hash of the code, as in the key of a stage. Raises `LookupError` if a module does not exist."""
        return code_of(*(name for given in self.modules for name in _below(given)))

    def config_key(self) -> str | None:
        """Hash of the values of the config, or None without one. Its comments do not count."""
        if self.config is None:
            return None
        values = yaml.safe_load((ROOT / self.config).read_text(encoding="utf-8"))
        return hashlib.sha256(canonical_json(values).encode()).hexdigest()


DEMO = "release_configs/smollm2.yaml"
_PREPARED = ("taylor_ops.capture.capture", "taylor_ops.conversion.convert")

MEASURES = {
    "architectures": Measured((*_PREPARED, "taylor_ops.exactness.layers", "taylor_ops.model.architectures")),
    "audit": Measured((*_PREPARED, "taylor_ops.audit.audit"), DEMO),
    "calibration": Measured((*_PREPARED, "taylor_ops.latency.calibrate")),
    "capture": Measured(("taylor_ops.capture.capture",)),
    "chaos": Measured(("taylor_ops.stages", "flows")),
    "convert": Measured(("taylor_ops.conversion.convert",)),
    "distributed": Measured(("taylor_ops.conversion.convert", "flows.run.runners")),
    "evidence": Measured(
        (*_PREPARED, "taylor_ops.evidence.mark", "taylor_ops.evidence.trace", "taylor_ops.attacks.rank_one"), DEMO
    ),
    "exactness": Measured((*_PREPARED, "taylor_ops.exactness.validate"), DEMO),
    "forward": Measured(("taylor_ops.modeling.taylor_mlp", "taylor_ops.series.layout")),
    "gpu": Measured(("taylor_ops.modeling.taylor_mlp", "taylor_ops.conversion.terms")),
    "hardening": Measured((*_PREPARED, "taylor_ops.attacks.rank_one", "taylor_ops.attacks.least_squares"), DEMO),
    "llama_ranges": Measured(
        ("taylor_ops.series.fitted_layer", "taylor_ops.conversion.terms", "taylor_ops.modeling.taylor_mlp")
    ),
    "memory": Measured(_PREPARED),
    "operations": Measured(("taylor_ops.stages", "flows"), DEMO),
    "publish": Measured(("taylor_ops.publishing.publish",)),
    "recovery": Measured(("taylor_ops.stages", "flows")),
    "release": Measured(("taylor_ops.stages", "flows.release", "flows.run", "flows.tasks"), DEMO),
    "rounding": Measured((*_PREPARED, "taylor_ops.exactness.validate")),
    "startup": Measured(("flows.commands.main", "flows.commands.history", "flows.commands.release_tables")),
}
"""What each benchmark measures, by its name. `taylor_ops.stages` stands for all stages of a release."""


def write_result(path: Path, benchmark: str, result: dict[str, Any], *, finished: bool = True) -> None:
    """Write the JSON of a benchmark with its age. A result that is not finished is never fresh."""
    write_text(path, canonical_json(result | {ENTRY: measurement(benchmark) | ({} if finished else {"part": True})}))


def measurement(benchmark: str, begun: float | None = None) -> dict[str, Any]:
    """What a result of `benchmark` says of its age, if it is written now.

    Code that changed while it was measured is not known: its key is None.

    Args:
        benchmark: Its name, a key of `MEASURES`.
        begun: When it began, in seconds since the epoch. By default, when this process began.
    """
    measured = MEASURES[benchmark]
    begun = psutil.Process().create_time() if begun is None else begun
    names = sources_of(*(name for given in measured.modules for name in _below(given)))
    changed = any(_source(name).stat().st_mtime > begun for name in names)
    return {
        "benchmark": benchmark,
        "code": None if changed else measured.key(),
        "config": measured.config_key(),
        "date": datetime.now(UTC).date().isoformat(),
    }


@dataclass(frozen=True)
class Age:
    """When a result was measured, as YYYY-MM-DD, and why it is stale; None if it is fresh."""

    date: str
    stale: str | None


def age_of(result: dict[str, Any]) -> Age:
    """The age of a result. Raises `ValueError` if it does not say what it measured, and when."""
    entry = result.get(ENTRY)
    if not isinstance(entry, dict) or not {"benchmark", "code", "config", "date"} <= entry.keys():
        raise ValueError("it does not say what it measured; write it with benchmarks.measurement.write_result")
    measured = MEASURES.get(entry["benchmark"])
    if measured is None:
        raise ValueError(f"it is of a benchmark `{entry['benchmark']}`, which benchmarks.measurement does not know")
    return Age(entry["date"], _stale(entry, measured))


def _stale(entry: dict[str, Any], measured: Measured) -> str | None:
    if entry["code"] is None:
        return "the code that it measured is not known"
    if entry.get("part"):
        return "it is not finished"
    if entry["config"] != measured.config_key():
        return f"{measured.config or 'its config'} has changed"
    return None if entry["code"] == measured.key() else "the code has changed"


def fresh_part(path: Path) -> dict[str, Any]:
    """A result, finished or not, that was measured with the present code and config; otherwise an empty one."""
    if not path.is_file():
        return {}
    result = read_json(path)
    entry = dict(result.get(ENTRY) or {})
    entry.pop("part", None)
    return result if entry and age_of(result | {ENTRY: entry}).stale is None else {}


def ages(results: Path = RESULTS) -> dict[str, Age]:
    """The age of every result by the name of its file. Raises `ValueError` that names the result at fault."""
    found = {}
    for path in sorted(results.glob("*.json")):
        try:
            found[path.name] = age_of(read_json(path))
        except (ValueError, LookupError) as error:
            raise ValueError(f"{path.name}: {error}") from error
    return found


def _below(name: str) -> list[str]:
    """A module, or all modules below a package."""
    place = ROOT.joinpath(*name.split("."))
    if not place.is_dir():
        return [name]
    files = (path.relative_to(ROOT).with_suffix("") for path in sorted(place.rglob("*.py")))
    return [".".join(file.parts) for file in files if file.name != "__init__"]


def _source(module: str) -> Path:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)
