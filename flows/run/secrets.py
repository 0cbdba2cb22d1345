"""Tokens from Prefect Secret blocks: read where they are used, handed to no task and kept in no record."""

from __future__ import annotations

from typing import Any

from prefect.blocks.system import Secret
from prefect.settings import get_current_settings
from pydantic import SecretStr

from taylor_ops.config.publish import Publish
from taylor_ops.errors import BadInput


def token_of(where: Publish) -> SecretStr | None:
    """The token in the Secret block that a config names; None where it names none. `BadInput` for one without."""
    if where.token_secret is None:
        return None
    try:
        block: Any = Secret.load(where.token_secret)
    except ValueError as error:
        raise BadInput(
            f"there is no Prefect Secret block `{where.token_secret}`",
            "create it on the Prefect server, or correct `publish.token_secret`",
        ) from error
    return SecretStr(str(block.get()))


def secrets_here(where: Publish) -> tuple[str, ...]:
    """Every secret that Prefect holds for this process, for the gate that looks for them in a bundle."""
    settings = get_current_settings()
    known = (token_of(where), settings.api.key, settings.api.auth_string, settings.server.api.auth_string)
    said = [secret.get_secret_value() for secret in known if secret is not None]
    # Who has the password of `name:password` needs no name to use it.
    return (*said, *(text.partition(":")[2] for text in said if ":" in text))
