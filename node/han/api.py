"""
The HAN API (detailed specification 2.0, chapter 6): paths, methods, status codes, content types.

A request is judged in this order: path of the role (403 for another's), what it names (404), method (405), what the
client takes (406), query and body (400, 411, 413, 415, 422).  Every answer with a body says its type; every failure
has a JSON body with `reason` and `detail`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel, ValidationError

from node.han.accounts import Account, Role
from node.han.answers import CSV, JSON, XML, accepted, as_csv, envelope
from node.han.catalogue import VERSION, Action, ResourceType, Tree, actions_of, types_of
from node.han.models import ArFile
from node.han.query import parse_query
from node.han.threads import in_thread
from node.han.view import NotThere, View
from node.storage.errors import SealError, StoreError
from protocol.errors import LocalProtocolError, RemoteProtocolError

ROOT: Final = "/smgw/"

Start = Callable[[Account, BaseModel], Awaitable[BaseModel | None]]
"""Carries out an action."""


@dataclass(frozen=True, slots=True)
class HanRequest:
    """A request of somebody who has logged in; `path` is decoded, `query` is raw, None without `?`."""

    account: Account
    method: str
    path: str
    query: str | None
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class HanAnswer:
    """Status, content and further headers; an empty content type stands for no content."""

    status: int
    content: bytes = field(default=b"", repr=False)
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class _Refused(Exception):
    def __init__(self, status: int, reason: str, detail: str, *headers: tuple[str, str]) -> None:
        super().__init__(reason)
        self.answer = failure(status, reason, detail, *headers)


def failure(status: int, reason: str, detail: str, *headers: tuple[str, str]) -> HanAnswer:
    """An answer that says what was wrong."""
    return HanAnswer(status, json.dumps({"reason": reason, "detail": detail}).encode(), JSON, headers)


class HanApi:
    """One gateway's; `actions` carry out those of the catalogue, by name."""

    def __init__(self, view: View, actions: Mapping[str, Start]) -> None:
        self._view = view
        self._actions = actions

    async def answer(self, request: HanRequest) -> HanAnswer:
        """Answer a request for a path below `/smgw/`.  Never raises for what a client sends."""
        try:
            return await self._answer(request)
        except _Refused as refused:
            return refused.answer
        except NotThere:
            return failure(404, "not_there", "there is no such resource")
        except RemoteProtocolError as error:
            return failure(400, error.reason, error.detail)
        except (StoreError, SealError):
            return failure(503, "store", "the gateway's store cannot be read or written; try again later")

    async def _answer(self, request: HanRequest) -> HanAnswer:
        role, rest = request.account.role, request.path.removeprefix(ROOT)
        base = f"{ROOT}{role.value}/{VERSION}/"
        if not rest:
            return self._listed(request, [base])
        first, _, rest = rest.partition("/")
        if first != role.value and first in {each.value for each in Role}:
            raise _Refused(403, "wrong_role", f"logged in with the role {role.value}")
        version, slash, rest = rest.partition("/")
        if first != role.value or version != VERSION or not slash:
            raise NotThere
        if not rest:
            return self._listed(request, [f"{base}{each}/" for each in ("rts", "fas", "exp")])
        part, slash, rest = rest.partition("/")
        if not slash:
            raise NotThere
        if part == "fas":
            return await self._fas(request, f"{base}fas/", rest)
        if part not in set(Tree):
            raise NotThere
        return await self._resources(request, Tree(part), f"{base}{part}/", rest)

    async def _resources(self, request: HanRequest, tree: Tree, base: str, rest: str) -> HanAnswer:
        types = types_of(request.account.role, tree)
        if not rest:
            return self._listed(request, [f"{base}{each}/" for each in types])
        name, slash, wanted = rest.partition("/")
        kind = types.get(name)
        if kind is None or not slash:
            raise NotThere
        if not wanted:
            ids = await in_thread(lambda: kind.ids(self._view, request.account))
            return self._listed(request, [f"{base}{name}/{each}" for each in ids])
        ids = await in_thread(lambda: kind.ids(self._view, request.account))
        if wanted not in ids:
            raise NotThere
        self._require(request, "GET")
        return await self._read(request, kind, wanted)

    async def _read(self, request: HanRequest, kind: ResourceType, wanted: str) -> HanAnswer:
        is_export = kind.tree is Tree.EXPORT
        content_type = accepted(request.headers.get("accept"), (JSON, kind.also) if is_export else (JSON,))
        if content_type is None:
            raise _Refused(406, "not_acceptable", "the answer would be application/json")
        query = parse_query(request.query, kind.parameters)
        if query.is_signed and content_type != JSON:
            raise _Refused(406, "not_acceptable", "only JSON is signed")

        def read() -> bytes:
            key = self._view.facts.module.signature_key if query.is_signed else None
            found = kind.read(self._view, request.account, wanted, query)
            if content_type == CSV:
                return as_csv(found)
            if isinstance(found, ArFile) and content_type == XML:
                return found.document.encode()
            return envelope(kind.name, wanted, found, key) if is_export else found.model_dump_json().encode()

        try:
            return HanAnswer(200, await in_thread(read), content_type)
        except LocalProtocolError as error:
            raise _Refused(503, "no_signature_key", "the gateway cannot sign yet; ask without q.signed") from error

    async def _fas(self, request: HanRequest, base: str, rest: str) -> HanAnswer:
        actions = actions_of(request.account.role)
        if not rest:
            return self._listed(request, [f"{base}{each}" for each in actions])
        action = actions.get(rest)
        if action is None:
            raise NotThere
        self._require(request, "POST")
        parse_query(request.query, ())
        result = await self._actions[action.name](request.account, _body_of(request, action))
        if isinstance(result, HanRefusal):
            raise _Refused(result.status, result.reason, result.detail)
        if result is None:
            return HanAnswer(204)
        return HanAnswer(200, result.model_dump_json().encode(), JSON)

    def _listed(self, request: HanRequest, uris: list[str]) -> HanAnswer:
        self._require(request, "GET")
        if accepted(request.headers.get("accept"), (JSON,)) is None:
            raise _Refused(406, "not_acceptable", "the answer would be application/json")
        parse_query(request.query, ())
        return HanAnswer(200, json.dumps(uris).encode(), JSON)

    @staticmethod
    def _require(request: HanRequest, method: str) -> None:
        if request.method != method:
            raise _Refused(405, "wrong_method", f"expected {method}", ("Allow", method))


class HanRefusal(BaseModel):
    """What an action gives where it is not carried out."""

    status: int
    reason: str
    detail: str


def _body_of(request: HanRequest, action: Action) -> BaseModel:
    """Raises _Refused for a type that is not JSON, and for what is no such JSON; a value is never repeated."""
    if not request.body and action.takes.model_fields == {}:
        return action.takes()
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != JSON:  # also what keeps a page of another site from posting with the browser's log-in
        raise _Refused(415, "content_type", "expected application/json")
    try:
        return action.takes.model_validate_json(request.body)
    except ValidationError as error:
        fields = sorted({".".join(map(str, each["loc"])) or "body" for each in error.errors(include_input=False)})
        raise _Refused(422, "bad_body", f"does not fit the schema: {', '.join(fields)}") from None
