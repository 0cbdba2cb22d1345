"""Xet storage behind the stand-in for the Hub: a folder that the client itself writes and reads, chunk by chunk.

The client (hf_xet) takes `local://FOLDER` in place of the address of a storage server, and then keeps in it what a
server would: blocks of chunks, and shards that say which chunks make which file. The stand-in hands that address out
and reads from the shards, as the Hub does, under which hash of Xet a file with an announced SHA-256 is kept.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from tests.support.loopback_hub.requests import Answer

_ROW = 48
_END = b"\xff" * 32
_WITH_VERIFICATION, _WITH_SHA256 = 0x80000000, 0x40000000
_NEVER = 2**33


@dataclass(frozen=True)
class XetFile:
    """A file in the storage. hash: what Xet calls it; size: its bytes."""

    hash: str
    size: int


def files_in(folder: Path) -> dict[str, XetFile]:
    """The files of a storage by SHA-256."""
    found: dict[str, XetFile] = {}
    for shard in sorted(folder.rglob("shards/*.mdb")):
        found |= _files_of(shard.read_bytes())
    return found


def _files_of(shard: bytes) -> dict[str, XetFile]:
    """The first section of a shard: rows of 48 bytes, a header for each file, then its segments."""
    found: dict[str, XetFile] = {}
    place = _ROW
    while shard[place : place + 32] != _END:
        name, flags, segments = struct.unpack_from("<32sII", shard, place)
        sizes = [struct.unpack_from("<I", shard, place + (1 + n) * _ROW + 36)[0] for n in range(segments)]
        place += _ROW * (1 + segments * (2 if flags & _WITH_VERIFICATION else 1))
        if flags & _WITH_SHA256:
            found[_said(shard[place : place + 32])] = XetFile(_said(name), sum(sizes))
            place += _ROW
    return found


def _said(digest: bytes) -> str:
    """A hash as Xet writes it down: four numbers of 64 bits."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))


def access(folder: Path) -> Answer:
    """Where the storage is, and leave to use it."""
    address = f"local://{folder}"
    headers = {"X-Xet-Cas-Url": address, "X-Xet-Access-Token": "xet-token", "X-Xet-Token-Expiration": str(_NEVER)}
    return Answer({"casUrl": address, "accessToken": "xet-token", "exp": _NEVER}, headers=headers)


def headers_of(file: str, endpoint: str, repo_id: str, commit: str) -> dict[str, str]:
    """What a Hub says of a file besides: its hash in the storage, and where leave to read it is given."""
    route = f"{endpoint}/api/models/{repo_id}/xet-read-token/{commit}"
    return {"X-Xet-Hash": file, "Link": f'<{route}>; rel="xet-auth"'}
