"""The stand-in for the Hub as an ASGI application: which request is what, who may ask it, and what is answered."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.support.loopback_hub import discussions, xet
from tests.support.loopback_hub.faults import Fault, Faults
from tests.support.loopback_hub.requests import Answer, Gone, Receive, Request, Send, cut
from tests.support.loopback_hub.store import Account, Refused, Repository, Store, StoredCommit, StoredFile

_REPO = r"(?P<repo>[^/]+/[^/]+)"
_R = rf"/api/models/{_REPO}"
_LFS = r"/lfs/(?P<oid>[0-9a-f]{64})"
_LARGE = (".safetensors", ".bin", ".model")
_ROUTES = [
    (method, re.compile(pattern + r"/?$"), kind)
    for method, pattern, kind in [
        ("GET", "/api/whoami-v2", "whoami"),
        ("POST", "/api/repos/create", "create_repo"),
        ("POST", "/api/validate-yaml", "validate_yaml"),
        ("GET", rf"{_R}(/revision/(?P<revision>[^/]+))?", "info"),
        ("PUT", rf"{_R}/settings", "settings"),
        ("GET", rf"{_R}/refs", "refs"),
        ("GET", rf"{_R}/tree/(?P<revision>[^/]+)(/(?P<path>.+))?", "tree"),
        ("GET", rf"{_R}/commits/(?P<revision>[^/]+)", "history"),
        ("POST", rf"{_R}/paths-info/(?P<revision>[^/]+)", "paths_info"),
        ("POST", rf"{_R}/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", rf"{_R}/commit/(?P<revision>[^/]+)", "commit"),
        ("POST", rf"{_R}/branch/(?P<name>[^/]+)", "branch"),
        ("DELETE", rf"{_R}/branch/(?P<name>[^/]+)", "delete_branch"),
        ("POST", rf"{_R}/tag/(?P<name>[^/]+)", "tag"),
        ("DELETE", rf"{_R}/tag/(?P<name>[^/]+)", "delete_tag"),
        ("GET", rf"{_R}/discussions", "discussions"),
        ("POST", rf"{_R}/discussions", "discuss"),
        ("GET", rf"{_R}/discussions/(?P<number>\d+)", "discussion"),
        ("POST", rf"{_R}/discussions/(?P<number>\d+)/status", "pull_status"),
        ("POST", rf"{_R}/discussions/(?P<number>\d+)/merge", "merge"),
        ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", rf"{_LFS}", "lfs_put"),
        ("PUT", rf"{_LFS}/parts/(?P<number>\d+)", "lfs_part"),
        ("POST", rf"{_LFS}/complete", "lfs_complete"),
        ("POST", rf"/{_REPO}/lfs-verify", "lfs_verify"),
        ("GET", rf"{_R}/xet-read-token/(?P<revision>[^/]+)", "xet_read"),
        ("GET", rf"{_R}/xet-write-token/(?P<revision>[^/]+)", "xet_write"),
        ("(GET|HEAD)", rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    ]
]
_READS = {"info", "refs", "tree", "history", "paths_info", "discussions", "discussion", "resolve", "xet_read"}
_OPEN = {"validate_yaml", "lfs_put", "lfs_part", "lfs_complete", "unknown"}


class Hub:
    """The application. chunk_size: large files are sent in parts of so many bytes, or None for one PUT each."""

    def __init__(self, store: Store, accounts: dict[str, Account], chunk_size: int | None = None) -> None:
        self.store, self.accounts, self.chunk_size = store, accounts, chunk_size
        self.faults = Faults()
        self.endpoint = ""
        self.after_each: Callable[[str], None] = lambda _kind: None
        self.tokens_at_storage = 0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """One request, with what a test has ordered to go wrong."""
        request = Request(scope, receive)
        if request.path == "/-/faults":
            return await (await self._ordered_from_outside(request)).send(send)
        kind, found = _route(request)
        fault = self.faults.next(kind)
        try:
            await self._with_fault(request, send, kind, found, fault)
        except Gone:
            return None
        return None

    async def _ordered_from_outside(self, request: Request) -> Answer:
        """Where another process orders a fault, ends all of them, or asks how many bytes storage has received."""
        if request.method == "POST":
            self.faults.order(Fault(**await request.json()))
        if request.method == "DELETE":
            self.faults.cancel()
        return Answer({"received": self.faults.received})

    async def _with_fault(
        self, request: Request, send: Send, kind: str, found: dict[str, str], fault: Fault | None
    ) -> None:
        wrong = fault.wrong if fault else None
        if wrong == "cut" and request.method in ("POST", "PUT"):
            async for _ in request.chunks():
                break
            return cut(send)
        if wrong in ("before", "answer", "stall"):
            sent = await request.body()
            self.faults.received += len(sent) if kind in ("lfs_put", "lfs_part") else 0
            if wrong == "stall":
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                return None
            assert fault is not None
            headers = {"X-Error-Message": fault.message} | fault.headers
            said = {"error": fault.message} if fault.body is None else json.loads(fault.body)
            return await Answer(said, fault.status, headers).send(send)
        answer = await self._answered(request, kind, found)
        if wrong == "lost":
            return cut(send)
        if wrong == "after":
            return await Answer({"error": "ordered"}, 500).send(send)
        await answer.send(send, request.method == "HEAD", half=wrong == "cut")
        return cut(send) if wrong == "cut" else None

    async def _answered(self, request: Request, kind: str, found: dict[str, str]) -> Answer:
        try:
            account = self._account(request, kind)
            repository = self._repository(account, kind, found)
            answer: Answer = await getattr(self, f"_{kind}")(request, found, repository, account)
        except Refused as refused:
            headers = {"X-Error-Message": refused.message}
            answer = Answer(
                {"error": refused.message},
                refused.status,
                headers | ({"X-Error-Code": refused.code} if refused.code else {}),
            )
        self.after_each(kind)
        return answer

    def _account(self, request: Request, kind: str) -> Account | None:
        sent = (request.header("authorization") or "").removeprefix("Bearer ")
        if kind.startswith("lfs_p"):
            self.tokens_at_storage += bool(sent)
        if sent and sent not in self.accounts:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.accounts.get(sent)

    def _repository(self, account: Account | None, kind: str, found: dict[str, str]) -> Repository | None:
        """The repository of a request, if this account may do with it what it asks."""
        if kind in _OPEN:
            return None
        if "repo" not in found:
            if account is None:
                raise Refused(401, "Invalid username or password.")
            return None
        repository = self.store.repository(found["repo"])
        writes = account is not None and account.may_write(found["repo"].partition("/")[0])
        reads = writes or (account is not None and found["repo"].partition("/")[0] in (account.name, *account.orgs))
        if repository.private and not reads:
            raise Refused(404 if account else 401, "Repository not found", "RepoNotFound")
        if kind == "resolve" and repository.gated and not reads:
            raise Refused(403 if account else 401, "Access to this model is restricted", "GatedRepo")
        if kind not in _READS and not writes:
            raise Refused(403 if account else 401, "You don't have the required permissions")
        return repository

    # What each request does. Every function has the same parameters: request, what its address names, the repository
    # and the account.

    async def _unknown(self, request: Request, _found: Any, _repository: Any, _account: Any) -> Answer:
        raise Refused(404, f"the stand-in does not know {request.method} {request.path}")

    async def _whoami(self, _request: Request, _found: Any, _repository: Any, account: Account) -> Answer:
        token: dict[str, Any] = {"displayName": "test", "role": account.role}
        if account.scopes is not None:
            owners = {owner for owner, _ in account.scopes}
            scoped = [
                {"entity": {"name": owner}, "permissions": [p for o, p in account.scopes if o == owner]}
                for owner in sorted(owners)
            ]
            token = {"displayName": "test", "role": "fineGrained", "fineGrained": {"scoped": scoped, "global": []}}
        orgs = [{"name": name, "roleInOrg": "write"} for name in account.orgs]
        return Answer({"name": account.name, "type": "user", "orgs": orgs, "auth": {"accessToken": token}})

    async def _create_repo(self, request: Request, _found: Any, _repository: Any, account: Account) -> Answer:
        asked = await request.json()
        owner = asked["organization"] or account.name
        name = f"{owner}/{asked['name']}"
        if not account.may_write(owner):
            raise Refused(403, f"You don't have the rights to create a model under the namespace {owner!r}")
        url = {"url": f"{self.endpoint}/{name}", "name": name}
        if name in self.store.repositories:
            return Answer(url | {"error": "You already created this model repo"}, 409)
        self.store.create(name, asked.get("visibility") == "private", asked.get("resourceGroupId"))
        return Answer(url)

    async def _validate_yaml(self, request: Request, *_rest: Any) -> Answer:
        await request.body()
        return Answer({"errors": [], "warnings": []})

    async def _info(self, request: Request, found: dict[str, str], repository: Repository, _account: Any) -> Answer:
        commit = repository.at(found["revision"] or "main")
        siblings = [{"rfilename": name} for name in sorted(commit.files)]
        return Answer(
            {
                "id": repository.name,
                "modelId": repository.name,
                "author": repository.name.partition("/")[0],
                "sha": commit.oid,
                "private": repository.private,
                "gated": repository.gated,
                "siblings": siblings,
                "tags": [],
            }
        )

    async def _settings(self, request: Request, _found: Any, repository: Repository, _account: Any) -> Answer:
        asked = await request.json()
        repository.gated = asked.get("gated", repository.gated)
        repository.private = asked.get("visibility", "private" if repository.private else "public") == "private"
        return Answer({"ok": True})

    async def _refs(self, request: Request, _found: Any, repository: Repository, _account: Any) -> Answer:
        listed: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
        places = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/pr/": "pullRequests"}
        for ref, oid in repository.refs.items():
            prefix = next(prefix for prefix in places if ref.startswith(prefix))
            name = ref if prefix == "refs/pr/" else ref.removeprefix(prefix)
            listed[places[prefix]].append({"name": name, "ref": ref, "targetCommit": oid})
        return Answer(listed)

    async def _tree(self, _request: Request, found: dict[str, str], repository: Repository, _account: Any) -> Answer:
        below = f"{found['path']}/" if found["path"] else ""
        files = repository.at(found["revision"]).files
        listed = [_entry(name, file) for name, file in sorted(files.items()) if name.startswith(below)]
        if below and not listed:
            raise Refused(404, "Entry not found", "EntryNotFound")
        return Answer(listed)

    async def _history(self, _request: Request, found: dict[str, str], repository: Repository, _account: Any) -> Answer:
        commit: StoredCommit | None = repository.at(found["revision"])
        listed: list[dict[str, Any]] = []
        while commit is not None:
            said = {"id": commit.oid, "title": commit.title, "message": "", "date": "2024-01-01T00:00:00.000Z"}
            listed.append(said | {"authors": []})
            commit = repository.commits[commit.parent] if commit.parent else None
        return Answer(listed)

    async def _paths_info(
        self, request: Request, found: dict[str, str], repository: Repository, _account: Any
    ) -> Answer:
        files = repository.at(found["revision"]).files
        asked = parse_qs((await request.body()).decode())["paths"]
        return Answer([_entry(name, files[name]) for name in asked if name in files])

    async def _preupload(
        self, request: Request, found: dict[str, str], repository: Repository, _account: Any
    ) -> Answer:
        files = repository.at(found["revision"]).files
        answers = []
        for file in (await request.json())["files"]:
            name, there = file["path"], files.get(file["path"])
            large = name.endswith(_LARGE) or file["size"] > 10_000_000
            answer = {"path": name, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            answers.append(answer | ({"oid": there.sha256 or there.blob} if there else {}))
        return Answer({"files": answers})

    async def _commit(self, request: Request, found: dict[str, str], repository: Repository, _account: Any) -> Answer:
        lines = [json.loads(line) for line in (await request.body()).splitlines()]
        if request.query.get("create_pr"):
            raise Refused(400, "the stand-in takes pull requests that were opened before")
        commit = self.store.commit(repository, found["revision"], lines)
        url = f"{self.endpoint}/{repository.name}/commit/{commit.oid}"
        return Answer({"success": True, "commitOid": commit.oid, "commitUrl": url, "hookOutput": ""})

    async def _branch(self, request: Request, found: dict[str, str], repository: Repository, _account: Any) -> Answer:
        start = (await request.json()).get("startingPoint", "main")
        if f"refs/heads/{found['name']}" in repository.refs:
            raise Refused(409, "Reference already exists")
        repository.refs[f"refs/heads/{found['name']}"] = repository.at(start).oid
        return Answer(b"")

    async def _delete_branch(
        self, _request: Request, found: dict[str, str], repository: Repository, _account: Any
    ) -> Answer:
        if found["name"] == "main":
            raise Refused(403, "main cannot be deleted")
        if repository.refs.pop(f"refs/heads/{found['name']}", None) is None:
            raise Refused(404, "Invalid rev id", "RevisionNotFound")
        return Answer(b"")

    async def _tag(self, request: Request, found: dict[str, str], repository: Repository, _account: Any) -> Answer:
        tag = f"refs/tags/{(await request.json())['tag']}"
        if tag in repository.refs:
            raise Refused(409, "Tag reference exists already")
        repository.refs[tag] = repository.at(found["name"]).oid
        return Answer(b"")

    async def _delete_tag(
        self, _request: Request, found: dict[str, str], repository: Repository, _account: Any
    ) -> Answer:
        if repository.refs.pop(f"refs/tags/{found['name']}", None) is None:
            raise Refused(404, "Invalid rev id", "RevisionNotFound")
        return Answer(b"")

    _discussions = staticmethod(discussions.listed)
    _discuss = staticmethod(discussions.opened)
    _discussion = staticmethod(discussions.shown)
    _pull_status = staticmethod(discussions.status_changed)
    _merge = staticmethod(discussions.merged)

    async def _lfs_batch(self, request: Request, found: dict[str, str], _repository: Any, _account: Any) -> Answer:
        objects: list[dict[str, Any]] = []
        for asked in (await request.json())["objects"]:
            place = f"{self.endpoint}/lfs/{asked['oid']}"
            answer = {"oid": asked["oid"], "size": asked["size"]}
            verify = {"href": f"{self.endpoint}/{found['repo']}/lfs-verify"}
            if self.store.object(asked["oid"]).is_file():
                objects.append(answer)
            elif self.chunk_size is None:
                upload: dict[str, Any] = {"href": f"{place}?signature=secret", "header": {}}
                objects.append(answer | {"actions": {"upload": upload, "verify": verify}})
            else:
                parts = -(-asked["size"] // self.chunk_size)
                header = {f"{n:05d}": f"{place}/parts/{n}?signature=secret" for n in range(1, parts + 1)}
                upload = {"href": f"{place}/complete", "header": {"chunk_size": str(self.chunk_size)} | header}
                objects.append(answer | {"actions": {"upload": upload, "verify": verify}})
        return Answer({"transfer": "multipart" if self.chunk_size else "basic", "objects": objects})

    async def _lfs_put(self, request: Request, found: dict[str, str], *_rest: Any) -> Answer:
        partial = self.store.part(found["oid"], 0)
        await self._receive(request, partial)
        self.store.keep(partial, found["oid"])
        return Answer(b"")

    async def _lfs_part(self, request: Request, found: dict[str, str], *_rest: Any) -> Answer:
        await self._receive(request, self.store.part(found["oid"], int(found["number"])))
        return Answer(b"", headers={"ETag": f'"{found["number"]}"'})

    async def _receive(self, request: Request, place: Any) -> None:
        with place.open("wb") as target:
            async for chunk in request.chunks():
                target.write(chunk)
                self.faults.received += len(chunk)

    async def _lfs_complete(self, request: Request, found: dict[str, str], *_rest: Any) -> Answer:
        asked = await request.json()
        if any(part["etag"] != f'"{part["partNumber"]}"' for part in asked["parts"]):
            raise Refused(400, "wrong ETag")
        self.store.join(found["oid"], [part["partNumber"] for part in asked["parts"]])
        return Answer({"success": True})

    async def _lfs_verify(self, request: Request, *_rest: Any) -> Answer:
        asked = await request.json()
        place = self.store.object(asked["oid"])
        if not place.is_file() or place.stat().st_size != asked["size"]:
            raise Refused(404, "the object is not there as announced")
        return Answer({"ok": True})

    async def _xet_read(self, _request: Request, *_rest: Any) -> Answer:
        if self.store.xet is None:
            raise Refused(404, "this Hub has no Xet storage")
        return xet.access(self.store.xet)

    _xet_write = _xet_read

    async def _resolve(self, request: Request, found: dict[str, str], repository: Repository, _account: Any) -> Answer:
        commit = repository.at(found["revision"])
        if found["path"] not in commit.files:
            raise Refused(404, "Entry not found", "EntryNotFound")
        file = commit.files[found["path"]]
        content: Any = self.store.object(file.sha256) if file.sha256 else self.store.blobs[file.blob]
        etag = f'"{file.sha256 or file.blob}"'
        headers = {"X-Repo-Commit": commit.oid, "ETag": etag, "Accept-Ranges": "bytes"}
        if file.sha256:
            headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(file.size)}
        if file.xet:
            headers |= xet.headers_of(file.xet, self.endpoint, repository.name, commit.oid)
        start = int((request.header("range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{file.size - 1}/{file.size}"
        status = 206 if start else 200
        if file.sha256:
            return Answer(content, status, headers, span=(start, file.size))
        return Answer(content[start:], status, headers)


def _route(request: Request) -> tuple[str, dict[str, str]]:
    for method, pattern, kind in _ROUTES:
        match = pattern.match(request.path)
        if match and re.fullmatch(method, request.method):
            return kind, {name: unquote(value or "") for name, value in match.groupdict().items()}
    return "unknown", {}


def _entry(name: str, file: StoredFile) -> dict[str, Any]:
    """One file as the listings of the Hub show it."""
    entry: dict[str, Any] = {"type": "file", "path": name, "size": file.size, "oid": file.blob}
    if file.sha256:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 134}
    if file.xet:
        entry["xetHash"] = file.xet
    return entry
