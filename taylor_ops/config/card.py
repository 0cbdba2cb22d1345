"""The section `card` of a release config: what a model card says that no measurement can, and how it is written."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from taylor_ops.config.section import REPO_ID, LocalPath, Section


class Card(Section):
    """What the model card says that no measurement can."""

    license: str = Field(min_length=1)
    """Licence identifier of the Hub, such as `apache-2.0` or `llama3`."""
    license_name: str | None = Field(default=None, min_length=1, validate_default=True)
    """Name of the licence where `license` is `other`."""
    license_link: str | None = Field(default=None, min_length=1, validate_default=True)
    """Where its text is: an address, where `license` is `other`."""
    base_model: str | None = Field(default=None, pattern=REPO_ID)
    """Hub repository of the original, where there is one."""
    language: tuple[str, ...] = ("en",)
    """Languages of the model, as the Hub writes them."""
    tags: tuple[str, ...] = ()
    """Further tags of the model on the Hub."""
    contact: str | None = None
    """Where a reader can ask for more; shown as given."""
    measured: bool = True
    """State what was timed: slowdowns with their intervals, samples and plots. They differ from run to run, and with
    them card and manifest; without them two runs that choose the same plan end with the same bytes, file by file, but
    for a signature of Sigstore."""
    template: LocalPath | None = None
    """A jinja2 template in place of the project's own, relative to the config file's folder; docs/card.md says what it
    is given."""

    @field_validator("license_name", "license_link")
    @classmethod
    def _of_another_licence(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "license" in info.data and (info.data["license"] == "other") != (value is not None):
            raise ValueError("is needed where `license` is `other`, and belongs nowhere else")
        return value

    @field_validator("template")
    @classmethod
    def _a_template(cls, template: LocalPath | None) -> LocalPath | None:
        if template is not None:
            # Only a config with a template of its own needs to wait for jinja2.
            from jinja2 import Environment, TemplateSyntaxError

            try:
                Environment().parse(template.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"cannot be read: {error}") from error
            except TemplateSyntaxError as error:
                raise ValueError(f"is no jinja2 template: line {error.lineno}: {error.message}") from error
        return template
