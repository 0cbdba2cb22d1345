"""The JSON that commands print with `--json`: one schema each, which `taylor-release schema COMMAND` prints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import FloatSchema

from taylor_ops.errors import BadInput

# Each is imported only if its schema is asked for.


def _check() -> Any:
    from taylor_ops.config_file.checked import CheckedConfig

    return list[CheckedConfig]


def _plan() -> Any:
    from taylor_ops.preflight.record import Preflight

    return Preflight


def _release() -> Any:
    from taylor_ops.releases.record import ReleaseRecord

    return ReleaseRecord


def _list() -> Any:
    from taylor_ops.releases.overview import Overview

    return list[Overview]


def _diff() -> Any:
    from taylor_ops.releases.comparison import Difference

    return list[Difference]


def _clean() -> Any:
    from taylor_ops.releases.retention import Cleaned

    return Cleaned


def _verify() -> Any:
    from taylor_ops.verification.record import Verified

    return Verified


def _audit() -> Any:
    from taylor_ops.audit.record import AuditRecord

    return AuditRecord


def _doctor() -> Any:
    from taylor_ops.preflight.probed import Probed

    return list[Probed]


def _trace() -> Any:
    from taylor_ops.evidence.record import Traced

    return Traced


def _changed() -> Any:
    return list[str]


ANSWERS: dict[str, Callable[[], Any]] = {
    "doctor": _doctor,
    "check": _check,
    "plan": _plan,
    "run": _release,
    "list": _list,
    "show": _release,
    "diff": _diff,
    "verify": _verify,
    "audit": _audit,
    "clean": _clean,
    "changed": _changed,
    "trace": _trace,
}
"""The type of what a command prints, by its name."""


class _AsRecordsAreWritten(GenerateJsonSchema):
    """Schemas in which a number may also be one of the texts that stand for numbers that JSON has not."""

    def float_schema(self, schema: FloatSchema) -> JsonSchemaValue:
        return {"anyOf": [super().float_schema(schema), {"enum": ["NaN", "Infinity", "-Infinity"]}]}


def answer_schema(command: str) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of what `command --json` prints. Raises `BadInput` if it prints no JSON."""
    if command not in ANSWERS:
        raise BadInput(f"`{command}` is no command with --json", f"these are: {', '.join(ANSWERS)}")
    described = TypeAdapter(ANSWERS[command]()).json_schema(mode="serialization", schema_generator=_AsRecordsAreWritten)
    return {"$schema": GenerateJsonSchema.schema_dialect, **described}
