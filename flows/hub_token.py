"""Tokens from Prefect Secret blocks: read where they are used, handed to no task and kept in no record."""

from __future__ import annotations

from typing import Any

from prefect.blocks.system import Secret
from pydantic import SecretStr

from taylor_ops.errors import BadInput
from taylor_ops.publish_config import Publish


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
