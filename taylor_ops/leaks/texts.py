"""What the texts of a bundle must not reveal about the machine that made it: paths, names, addresses and secrets."""

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

from taylor_ops.masking import VARIABLES

# Names that many machines share and that occur in ordinary texts.
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
# Patterns that a vocabulary without spaces between its entries may match by chance.
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
_ACCOUNT_VARIABLES = ("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING")
_LONGER_THAN_WORDS = 16
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Machine:
    """What identifies this machine.

    Attributes:
        user: Name of the account.
        host: Name of the host.
        places: Absolute paths of its folders.
        secrets: Tokens that are set on it.
    """

    user: str
    host: str
    places: tuple[Path, ...]
    secrets: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """What decides the verdict of the leak gate, without the secrets."""
        return {"user": self.user, "host": self.host, "places": [str(place) for place in self.places]}


def this_machine(*places: Path, secrets: Iterable[str] = ()) -> Machine:
    """The machine that this process runs on.

    Args:
        places: Folders besides home, the current folder and the folder for temporary files.
        secrets: Tokens besides the Hugging Face login and the environment variables that hold secrets.
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""
    folders = {place.absolute() for place in (Path.home(), Path.cwd(), Path(tempfile.gettempdir()), *places)}
    values = {get_token() or "", *secrets, *(os.environ.get(name, "") for name in VARIABLES)}
    # The password of `name:password` is a secret by itself. A password that is an ordinary word would match any text.
    values |= {os.environ.get(name, "").partition(":")[2] for name in _ACCOUNT_VARIABLES}
    tokens = sorted(value for value in values if value and value.lower() not in _ANYBODY)
    return Machine(user, socket.gethostname(), tuple(sorted(folders)), tuple(tokens))


def leak_in(name: str, content: bytes, machine: Machine, public: Sequence[str], copied: bool) -> str | None:
    """What one file gives away, in words that do not repeat a secret. None if it gives nothing away.

    Args:
        name: Name of the file in the bundle.
        content: Bytes of the file, or of its header if it is a safetensors file.
        machine: What the file must not name.
        public: Texts that may occur anywhere, such as the contact of the card.
        copied: The original has the same file, byte for byte. Others have published the addresses in it already, and
            its vocabulary may hold any word.
    """
    vocabulary = copied and _VOCABULARY.search(name) is not None
    for text in _readings(_text(name, content)):
        # Names and addresses may be part of a public text; secrets and paths never are.
        private = _without(text, public)
        for finding, start in _findings(text, private, machine, copied, vocabulary):
            line = text.count("\n", 0, start) + 1
            return f"{finding} in line {line}" if "\n" in text else finding
    return None


def _readings(text: str) -> Iterator[str]:
    """The text with its JSON escapes resolved, if it has any, and the text as it is."""
    if _ESCAPED.search(text):
        yield _ESCAPED.sub(_unescaped, text).replace("\\/", "/")
    yield text.replace("\\/", "/")


def _unescaped(escaped: re.Match[str]) -> str:
    read: str = json.loads(f'"{escaped[0]}"')
    # An escaped newline starts no new line, so that a finding keeps its line number.
    return re.sub(r"\s", " ", read)


def _without(text: str, public: Sequence[str]) -> str:
    """The text with every public text in it blanked, plain or as JSON quotes it."""
    for form in sorted({form for public_text in public for form in _forms(public_text)}, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", _blank(form), text) if form else text
    return text


def _forms(text: str) -> set[str]:
    """A text as it is, and as JSON quotes it, with non-ASCII letters escaped and unescaped."""
    return {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}


def _blank(text: str) -> str:
    """A blank of the same length and with the same lines, so that findings in the rest keep their position."""
    return re.sub(r"[^\n]", "\0", text)


def _findings(text: str, private: str, machine: Machine, copied: bool, vocabulary: bool) -> Iterator[tuple[str, int]]:
    """Each finding with its position in `text`. `private` is `text` with the public texts blanked."""
    for secret in machine.secrets:
        if match := _secret_in(text, secret, vocabulary):
            yield "a token that is set on this machine", match.start()
    for kind, pattern in _patterns():
        by_chance = vocabulary and kind in _NOT_IN_A_VOCABULARY
        if not by_chance and (match := pattern.search(text)):
            yield f"a secret ({kind})", match.start()
    for place in machine.places:
        # A folder right below the root, such as /tmp, does not identify a machine.
        if len(place.parts) > 2 and (match := re.search(rf"(?<![\w.-]){re.escape(str(place))}(?![\w-])", text)):
            yield f"the path {place} of this machine", match.start()
    if vocabulary:
        return
    if match := _HOME.search(text):
        yield f"the path {match[0]}", match.start()
    for kind, word in (("user name", machine.user), ("host name", machine.host), *_short(machine.host)):
        identifying = len(word) > 2 and word.lower() not in _ANYBODY
        if identifying and (match := re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", private)):
            yield f"the {kind} `{word}` of this machine", match.start()
    if not copied and (match := _ADDRESS.search(private)):
        yield f"the e-mail address {match[0]}", match.start()


def _secret_in(text: str, secret: str, vocabulary: bool) -> re.Match[str] | None:
    """The first place of a secret in a text.

    A secret that is short enough to be a word has to stand alone, and is not looked for in a vocabulary.
    """
    forms = "|".join(map(re.escape, sorted(_forms(secret), key=len, reverse=True)))
    if len(secret) >= _LONGER_THAN_WORDS:
        return re.search(forms, text)
    return None if vocabulary else re.search(rf"(?<!\w)(?:{forms})(?!\w)", text)


def _short(host: str) -> list[tuple[str, str]]:
    return [("host name", host.partition(".")[0])] if "." in host else []


def _patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    yield from _MORE_SECRETS.items()
    detectors: dict[str, Any] = get_mapping_from_secret_type_to_class()
    for kind in _KINDS_OF_SECRET:
        for pattern in detectors[kind].denylist:
            yield kind, pattern


def _text(name: str, content: bytes) -> str:
    """The text in a file: of a PNG everything but the pixels, of a signature the signed statement too."""
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
