"""The release config: one frozen model of everything that a YAML file may say, with its defaults and limits.

Every section forbids unknown keys. `config_file/read` turns a YAML file into a `ReleaseConfig` or into a list of errors
with their lines. `taylor-release schema` and the documentation show the descriptions below.
"""

from __future__ import annotations

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from taylor_ops.config.audit import Audit
from taylor_ops.config.card import Card
from taylor_ops.config.conversion import Conversion, Execution
from taylor_ops.config.evidence import Marking
from taylor_ops.config.exactness import Exactness
from taylor_ops.config.latency import Latency
from taylor_ops.config.publish import Publish
from taylor_ops.config.section import DEVICE, Section
from taylor_ops.config.source import HubSource, Source
from taylor_ops.config.texts import Calibration
from taylor_ops.config.tighter import Guarded

VERSION = r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?"


class ReleaseConfig(Section):
    """One release: a model, a version, and everything that decides what the release makes of the model."""

    model_config = ConfigDict(title="Release config")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,99}$")
    """Name of the release and of its folder below the artifacts folder."""
    version: str = Field(pattern=f"^{VERSION}$")
    """Semantic version of the release."""
    source: Source
    """Where the original comes from."""
    calibration: Calibration = Calibration()
    conversion: Conversion = Conversion()
    latency: Latency = Latency()
    exactness: Exactness = Field(default=Exactness(), validate_default=True)
    audit: Audit = Audit()
    evidence: Marking | None = None
    card: Card
    publish: Publish
    execution: Execution = Execution()
    device: str = Field(default="auto", pattern=DEVICE)
    """`cpu`, `cuda` or `cuda:N`. `auto` takes a GPU if there is one."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Seed of all random numbers (prompts of the latency measurement, bootstrap)."""
    overridable: tuple[Guarded, ...] = ()
    """Keys that overrides of a run may loosen. Without this, they may only tighten the keys that guard a release."""

    @field_validator("name")
    @classmethod
    def _not_where_releases_are_published(cls, name: str) -> str:
        if name == "hub":
            raise ValueError("is `hub`, the folder below the artifacts folder that holds what was published")
        return name

    @field_validator("exactness")
    @classmethod
    def _held_out_means_held_out(cls, exactness: Exactness, info: ValidationInfo) -> Exactness:
        calibration = info.data.get("calibration")
        seen = calibration.texts if calibration else ()
        for text in (*exactness.prompts, *exactness.running_text):
            if any(text.may_be(other) for other in seen):
                raise ValueError(f"text `{text.name}` is also a calibration text; hold out another text")
        return exactness

    @field_validator("audit")
    @classmethod
    def _a_text_to_train_on(cls, audit: Audit, info: ValidationInfo) -> Audit:
        exactness = info.data.get("exactness")
        trains = sorted({"fine_tuning", "lora"} & set(audit.attacks))
        if trains and exactness is not None and not exactness.running_text:
            raise ValueError(f"attack `{trains[0]}` trains on `exactness.running_text`, which is empty")
        return audit


def public_texts(config: ReleaseConfig) -> list[str]:
    """The texts that a config means to publish, for `require_no_leak`: repositories, the contact, and who signs."""
    source = config.source.repo_id if isinstance(config.source, HubSource) else None
    signer = config.publish.signing.identity if config.publish.signing else None
    texts = (config.card.contact, config.card.base_model, config.publish.repo_id, source, signer)
    return [text for text in texts if text]
