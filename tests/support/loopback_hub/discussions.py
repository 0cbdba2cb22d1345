"""Pull requests of the stand-in for the Hub."""

from __future__ import annotations

from typing import Any

from tests.support.loopback_hub.requests import Answer, Request
from tests.support.loopback_hub.store import Account, Pull, Refused, Repository

_WHEN = "2024-01-01T00:00:00.000Z"


async def listed(request: Request, _found: Any, repository: Repository, _account: Any) -> Answer:
    """All of them that are asked for, on one page."""
    asked = request.query.get("status")
    alive = ("draft", "open")
    pulls = [
        pull
        for pull in repository.pulls.values()
        if asked in (None, "all") or (pull.status in alive) == (asked == "open")
    ]
    return Answer({"count": len(pulls), "start": 0, "discussions": [_said(repository, pull) for pull in pulls]})


async def opened(request: Request, _found: Any, repository: Repository, account: Account) -> Answer:
    """A new one, as a draft at the head of main."""
    asked = await request.json()
    number = len(repository.pulls) + 1
    repository.pulls[number] = Pull(number, asked["title"], account.name)
    repository.refs[f"refs/pr/{number}"] = repository.refs["refs/heads/main"]
    return Answer({"num": number, "pullRequest": True})


async def shown(_request: Request, found: dict[str, str], repository: Repository, _account: Any) -> Answer:
    """One of them."""
    return Answer(_said(repository, _pull(repository, found)))


async def status_changed(request: Request, found: dict[str, str], repository: Repository, _account: Any) -> Answer:
    """Opened for review, or closed."""
    pull = _pull(repository, found)
    pull.status = (await request.json())["status"]
    event = {"id": "1", "type": "status-change", "createdAt": _WHEN, "data": {"status": pull.status}}
    return Answer({"newStatus": event})


async def merged(_request: Request, found: dict[str, str], repository: Repository, _account: Any) -> Answer:
    """Its changes become one commit on main; refused while main has moved since, or while it is a draft."""
    pull = _pull(repository, found)
    head, main = repository.at(f"refs/pr/{pull.number}"), repository.at("main")
    if pull.status != "open":
        raise Refused(400, "only an open pull request can be merged")
    base = head
    while base.parent and base.oid != main.oid:
        base = repository.commits[base.parent]
    if base.oid != main.oid:
        raise Refused(409, "conflicts with main")
    commit = repository.add(main, f"{pull.title} (#{pull.number})", head.files)
    repository.refs["refs/heads/main"] = commit.oid
    pull.status, pull.merged_as = "merged", commit.oid
    return Answer({"ok": True})


def _pull(repository: Repository, found: dict[str, str]) -> Pull:
    pull = repository.pulls.get(int(found["number"]))
    if pull is None:
        raise Refused(404, "Discussion not found")
    return pull


def _said(repository: Repository, pull: Pull) -> dict[str, Any]:
    return {
        "num": pull.number,
        "title": pull.title,
        "author": {"name": pull.author},
        "createdAt": _WHEN,
        "status": pull.status,
        "isPullRequest": True,
        "repo": {"name": repository.name, "type": "model"},
        "events": [],
        "changes": {"base": "refs/heads/main"} | ({"mergeCommitId": pull.merged_as} if pull.merged_as else {}),
        "filesWithConflicts": [],
    }
