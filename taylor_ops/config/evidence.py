"""The section `evidence` of a release config: whose copy a release is, and with which key that is marked in it."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from taylor_ops.config.section import Section, beside_the_config

RECIPIENT = r"^[A-Za-z0-9][A-Za-z0-9._@+-]*$"
VARIABLE = r"[A-Z][A-Z0-9_]*"
STRENGTH = 4e-3
"""The default. A little more than half a step of bfloat16, so that a mark stays when weights are rounded to it."""
LEAST_STRENGTH, MOST_STRENGTH = 1e-5, 0.2


class Marking(Section):
    """A keyed mark on the output weights tells whose copy a release is. Its card says that it is there, not whose."""

    recipient: str = Field(pattern=RECIPIENT)
    """Who receives this copy, as `taylor-release trace` names it. It stands in `release.json` and in no bundle."""
    key: str = Field(min_length=1)
    """Where the owner's secret is: a file of at least 16 bytes, relative to the config file's folder, or, where it is
    written in capitals, the environment variable of that name. The secret goes into nothing that a release writes."""
    strength: float = Field(default=STRENGTH, ge=LEAST_STRENGTH, le=MOST_STRENGTH)
    """By how much a marked weight is moved, as a fraction of itself. One output weight in 256 is marked."""

    @field_validator("key")
    @classmethod
    def _beside_the_config(cls, key: str, info: ValidationInfo) -> str:
        return key if re.fullmatch(VARIABLE, key) else str(beside_the_config(Path(key), info))
