"""The section `card` of a release config: what a model card says beside the measurements, and how it is written."""

from __future__ import annotations

import difflib
from functools import cache
from importlib.resources import files

from pydantic import Field, ValidationInfo, field_validator

from taylor_ops.config.section import LocalPath, RepoId, Section

_NO_LANGUAGE = ("code", "multilingual")


@cache
def _listed(name: str) -> tuple[str, ...]:
    """Every word of a list in the data of this package, as of the date that the file states."""
    text = (files("taylor_ops") / "data" / name).read_text(encoding="utf-8")
    return tuple(word for line in text.splitlines() if not line.startswith("#") for word in line.split())


class Card(Section):
    """What the model card says beside the measurements."""

    license: str = Field(min_length=1)
    """Licence, by its identifier on the Hub, such as `apache-2.0` or `llama3`."""
    license_name: str | None = Field(default=None, min_length=1, validate_default=True)
    """Name of the licence, if `license` is `other`."""
    license_link: str | None = Field(default=None, min_length=1, validate_default=True)
    """Address of the licence text, if `license` is `other`."""
    base_model: RepoId | None = None
    """Hub repository of the original, if there is one."""
    language: tuple[str, ...] = ("en",)
    """Languages of the model, by their codes on the Hub: two or three letters of ISO 639, `code` or `multilingual`."""
    tags: tuple[str, ...] = ()
    """Additional tags of the model on the Hub."""
    contact: str | None = None
    """Where a reader can ask for more. The card shows this text as it is given."""
    files: tuple[str, ...] = ()
    """Further files of the source that go into the bundle, by their paths in the folder of the source. Config,
    tokenizer, chat templates, processor, licence and policy go along without being named; `plan` names the rest."""
    measured: bool = True
    """State the timed figures: slowdowns with their intervals, samples and plots. They differ from run to run, so card
    and manifest differ with them. Without them, two runs that choose the same plan write the same bytes in every file,
    except in a Sigstore signature."""
    template: LocalPath | None = None
    """A jinja2 template in place of the project's own, relative to the folder of the config file. docs/card.md lists
    the names that a template gets."""

    @field_validator("license")
    @classmethod
    def _known_to_the_hub(cls, value: str) -> str:
        known = _listed("hub_licences.txt")
        if value not in known:
            near = difflib.get_close_matches(value.lower().replace(" ", "-"), known, n=1)
            meant = f"; did you mean `{near[0]}`" if near else ""
            raise ValueError(
                f"is {value!r}, which is no licence of the Hub's list{meant}. For a licence that is not on it write "
                "`other`, and say which with `license_name` and `license_link`"
            )
        return value

    @field_validator("language")
    @classmethod
    def _codes_of_the_hub(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = {*_listed("language_codes.txt"), *_NO_LANGUAGE}
        wrong = next((code for code in value if code not in known), None)
        if wrong is not None:
            raise ValueError(
                f"has {wrong!r}, which is no code of a language on the Hub: write two or three small letters of "
                "ISO 639, such as `en`, or `code` or `multilingual`"
            )
        return value

    @field_validator("license_name", "license_link")
    @classmethod
    def _of_another_licence(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "license" in info.data and (info.data["license"] == "other") != (value is not None):
            raise ValueError("is needed if `license` is `other`, and only then")
        return value

    @field_validator("files")
    @classmethod
    def _in_the_folder_of_the_source(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        for name in files:
            parts = name.split("/")
            if not name or "\\" in name or any(part in ("", ".", "..") for part in parts):
                raise ValueError(f"`{name}` is no path in the folder of the source, such as `docs/limits.md`")
        return files

    @field_validator("template")
    @classmethod
    def _a_template(cls, template: LocalPath | None) -> LocalPath | None:
        if template is not None:
            # Only a config with a template of its own needs to wait for jinja2.
            from jinja2 import Environment, TemplateSyntaxError

            try:
                Environment().parse(template.read_text(encoding="utf-8-sig"))
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"cannot be read: {error}") from error
            except TemplateSyntaxError as error:
                raise ValueError(f"is no jinja2 template: line {error.lineno}: {error.message}") from error
        return template
