"""The section `evidence` of a release config: whose copy a release is, and the key of the mark that tells so."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from taylor_ops.config.section import Section, beside_the_config

RECIPIENT = r"^[A-Za-z0-9][A-Za-z0-9._@+-]*$"
VARIABLE = r"[A-Z][A-Z0-9_]*"
STRENGTH = 4e-3
"""Default of `strength`: a little more than half a step of bfloat16, so that a mark survives rounding to bfloat16."""
LEAST_STRENGTH, MOST_STRENGTH = 1e-5, 0.2


class Marking(Section):
    """A keyed mark on the output weights tells whose copy a release is. The card states the mark, not the recipient."""

    recipient: str = Field(pattern=RECIPIENT)
    """Who receives this copy, as `taylor-release trace` names it. The name is in `release.json` and in no bundle."""
    key: str = Field(min_length=1)
    """Where the owner's secret is. A name in capitals is an environment variable. Any other value is a file, relative
    to the folder of the config file. The secret has at least 16 bytes. Nothing that a release writes contains it."""
    strength: float = Field(default=STRENGTH, ge=LEAST_STRENGTH, le=MOST_STRENGTH)
    """How far the mark moves a weight, as a fraction of the weight. One output weight in 256 is marked."""

    @field_validator("key")
    @classmethod
    def _beside_the_config(cls, key: str, info: ValidationInfo) -> str:
        return key if re.fullmatch(VARIABLE, key) else str(beside_the_config(Path(key), info))
