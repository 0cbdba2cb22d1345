"""Tokens from Prefect Secret blocks, which are read at the moment of use, and reach no task and no record."""

from __future__ import annotations

from typing import Any

from prefect.blocks.system import Secret
from prefect.settings import get_current_settings
from pydantic import SecretStr

from taylor_ops.config.publish import Publish
from taylor_ops.errors import BadInput
from taylor_ops.masking import note_secret


def token_of(publish: Publish) -> SecretStr | None:
    """The token in the Secret block that a config names, or None. Raises `BadInput` if the block does not exist."""
    if publish.token_secret is None:
        return None
    try:
        block: Any = Secret.load(publish.token_secret)
    except ValueError as error:
        raise BadInput(
            f"there is no Prefect Secret block `{publish.token_secret}`",
            "create it on the Prefect server, or correct `publish.token_secret`",
        ) from error
    return SecretStr(note_secret(str(block.get())))


def secrets_here(publish: Publish) -> tuple[str, ...]:
    """Every secret that Prefect holds for this process. The leak gate searches bundles for them."""
    settings = get_current_settings()
    secrets = (token_of(publish), settings.api.key, settings.api.auth_string, settings.server.api.auth_string)
    texts = [secret.get_secret_value() for secret in secrets if secret is not None]
    # Of `name:password`, the password alone is a secret too.
    return (*texts, *(text.partition(":")[2] for text in texts if ":" in text))
