"""What a bundle must not say of the machine that made it: places, names, addresses and secrets in its texts."""

from __future__ import annotations

import base64
import getpass
import json
import os
import re
import socket
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from huggingface_hub import get_token

from taylor_ops.signing.keys import PASSWORD

# Names that many machines share and that stand in many a text.
_ANYBODY = frozenset(
    {"admin", "app", "build", "builder", "ci", "debian", "docker", "ec2-user", "host", "localhost", "model", "node"}
    | {"nobody", "prefect", "python", "root", "runner", "server", "test", "ubuntu", "user", "users", "worker"}
)
_KINDS_OF_SECRET = (
    "AWS Access Key",
    "Azure Storage Account access key",
    "Basic Auth Credentials",
    "Discord Bot Token",
    "GitHub Token",
    "GitLab Token",
    "JSON Web Token",
    "Mailchimp Access Key",
    "NPM tokens",
    "OpenAI Token",
    "Private Key",
    "PyPI Token",
    "SendGrid API Key",
    "Slack Token",
    "Square OAuth Secret",
    "Stripe Access Key",
    "Twilio API Key",
)
# Punctuation and words that a vocabulary without spaces between its entries may give by chance.
_NOT_IN_A_VOCABULARY = ("Basic Auth Credentials", "Private Key")
_MORE_SECRETS = {
    "Hugging Face token": re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}"),
    "GitHub Token": re.compile(r"\bgithub_pat_[A-Za-z0-9_]{40,}"),
    "Prefect API key": re.compile(r"\bpn[ub]_[A-Za-z0-9]{30,}"),
}
_HOME = re.compile(
    r"(?<![\w:/.-])(?:/(?:home|Users|root|private|workspace|scratch)/[\w.-]+|[A-Za-z]:\\{1,2}Users\\{1,2}[\w.-]+|~/[\w.-]+)"
)
_ADDRESS = re.compile(r"[\w.+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
_VOCABULARY = re.compile(r"(^|/)(tokenizer\.json|vocab\..*|merges\.txt|added_tokens\.json|.*\.(model|tiktoken))$")
_ESCAPED = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
_SECRET_VARIABLES = (
    "AWS_SECRET_ACCESS_KEY",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_API_KEY",
    "PREFECT_SERVER_API_AUTH_STRING",
    PASSWORD,
)
_ACCOUNT_VARIABLES = ("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING")
_LONGER_THAN_WORDS = 16
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Machine:
    """What tells this machine from others. places: folders of it, absolute; secrets: tokens that are set on it."""

    user: str
    host: str
    places: tuple[Path, ...]
    secrets: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """What of it decides a verdict, without the secrets."""
        return {"user": self.user, "host": self.host, "places": [str(place) for place in self.places]}


def this_machine(*places: Path, secrets: Iterable[str] = ()) -> Machine:
    """The machine that this process runs on.

    places, secrets: folders and tokens to know besides those of the account, the process and its environment.
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""
    every = {place.absolute() for place in (Path.home(), Path.cwd(), Path(tempfile.gettempdir()), *places)}
    known = {get_token() or "", *secrets, *(os.environ.get(name, "") for name in _SECRET_VARIABLES)}
    # Who has the password of `name:password` needs no name to use it. One that any text may hold tells nothing.
    known |= {os.environ.get(name, "").partition(":")[2] for name in _ACCOUNT_VARIABLES}
    told = sorted(secret for secret in known if secret and secret.lower() not in _ANYBODY)
    return Machine(user, socket.gethostname(), tuple(sorted(every)), tuple(told))


def leak_in(name: str, content: bytes, machine: Machine, public: Sequence[str], copied: bool) -> str | None:
    """What one file gives away, in words that do not repeat a secret; None where it is nothing.

    content: the bytes of the file, of safetensors those of the header. public: texts that may stand anywhere, such as
    the contact of the card. copied: the file is one of the original, byte for byte; addresses in it were published by
    others, and its vocabulary may hold any word.
    """
    vocabulary = copied and _VOCABULARY.search(name) is not None
    for text in _readings(_text(name, content)):
        # Names and addresses may be part of what is public; secrets and places never are.
        unsaid = _without(text, public)
        for what, found in _findings(text, unsaid, machine, copied, vocabulary):
            line = text.count("\n", 0, found) + 1
            return f"{what} in line {line}" if "\n" in text else what
    return None


def _readings(text: str) -> Iterator[str]:
    """The text as JSON reads it, where that is another, and as it stands."""
    if _ESCAPED.search(text):
        yield _ESCAPED.sub(_unescaped, text).replace("\\/", "/")
    yield text.replace("\\/", "/")


def _unescaped(escaped: re.Match[str]) -> str:
    read: str = json.loads(f'"{escaped[0]}"')
    # Lines stay lines, so that what is found has its place.
    return re.sub(r"\s", " ", read)


def _without(text: str, public: Sequence[str]) -> str:
    """The text with blanks for every public text in it, plain or as JSON quotes it."""
    for said in sorted({form for one in public for form in _forms(one)}, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(said)}(?!\w)", _blank(said), text) if said else text
    return text


def _forms(text: str) -> set[str]:
    """A text plain, and as JSON quotes it with and without other letters than those of ASCII."""
    return {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}


def _blank(said: str) -> str:
    """As long and with the same lines, so that what is found in the rest has its place."""
    return re.sub(r"[^\n]", "\0", said)


def _findings(text: str, unsaid: str, machine: Machine, copied: bool, vocabulary: bool) -> Iterator[tuple[str, int]]:
    for secret in machine.secrets:
        if match := _secret_in(text, secret, vocabulary):
            yield "a token that is set on this machine", match.start()
    for kind, pattern in _patterns():
        by_chance = vocabulary and kind in _NOT_IN_A_VOCABULARY
        if not by_chance and (match := pattern.search(text)):
            yield f"a secret ({kind})", match.start()
    for place in machine.places:
        # A folder right below the root, such as /tmp, says nothing of whose machine it is.
        if len(place.parts) > 2 and (match := re.search(rf"(?<![\w.-]){re.escape(str(place))}(?![\w-])", text)):
            yield f"the path {place} of this machine", match.start()
    if vocabulary:
        return
    if match := _HOME.search(text):
        yield f"the path {match[0]}", match.start()
    for what, word in (("user name", machine.user), ("host name", machine.host), *_short(machine.host)):
        named = len(word) > 2 and word.lower() not in _ANYBODY
        if named and (match := re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", unsaid)):
            yield f"the {what} `{word}` of this machine", match.start()
    if not copied and (match := _ADDRESS.search(unsaid)):
        yield f"the e-mail address {match[0]}", match.start()


def _secret_in(text: str, secret: str, vocabulary: bool) -> re.Match[str] | None:
    """Where a secret stands. One that is short enough to be a word is looked for as one, and not among all words."""
    forms = "|".join(map(re.escape, sorted(_forms(secret), key=len, reverse=True)))
    if len(secret) >= _LONGER_THAN_WORDS:
        return re.search(forms, text)
    return None if vocabulary else re.search(rf"(?<!\w)(?:{forms})(?!\w)", text)


def _short(host: str) -> list[tuple[str, str]]:
    return [("host name", host.partition(".")[0])] if "." in host else []


def _patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    yield from _MORE_SECRETS.items()
    known: dict[str, Any] = get_mapping_from_secret_type_to_class()
    for kind in _KINDS_OF_SECRET:
        for pattern in known[kind].denylist:
            yield kind, pattern


def _text(name: str, content: bytes) -> str:
    """The text in a file, its names and comments where it is a picture, what was signed where it is a signature."""
    if content.startswith(_PNG):
        content = b"\n".join(_chunks_but_pixels(content))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if name.endswith(".sig"):
        text += "\n" + _signed(text)
    return text


def _chunks_but_pixels(content: bytes) -> Iterator[bytes]:
    place = len(_PNG)
    while place + 8 <= len(content):
        length = int.from_bytes(content[place : place + 4])
        if content[place + 4 : place + 8] != b"IDAT":
            yield content[place + 4 : place + 8 + length]
        place += 12 + length
    yield content[place:]


def _signed(text: str) -> str:
    try:
        return base64.b64decode(json.loads(text)["dsseEnvelope"]["payload"]).decode("utf-8", "replace")
    except (ValueError, KeyError, TypeError):
        return ""
