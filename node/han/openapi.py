"""The HAN API as an OpenAPI 3.1 document, from the catalogue (`stromkreis han openapi`)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from node.han.answers import JSON
from node.han.catalogue import ACTIONS, TYPES, VERSION, ResourceType, Tree
from node.han.models import Signed
from node.han.query import DETACHED

_PARAMETERS = {
    "q.fromtime": "Start, inclusive: a date (legal time) or a date-time with its offset. Missing: 24 hours before.",
    "q.totime": "End, exclusive. Missing or in the future: now.",
    "q.type": "Number of an event.",
    "q.count": "Most records. Missing or 0: all, up to the bound of an answer.",
    "q.obis": "A register, A-B:C.D.E or A-B:C.D.E*F. F missing: 255.",
    "q.level": "I, W, E or F.",
    "q.signed": f"{DETACHED}: with a detached CMS signature over the octets of `data`.",
}
_SCHEMA = "#/components/schemas/{model}"


def document(version: str) -> dict[str, Any]:
    """Paths of all roles with their schemas."""
    models: list[type[BaseModel]] = list(dict.fromkeys(each.model for each in TYPES))
    models += [each for action in ACTIONS for each in (action.takes, action.gives) if each is not None]
    wanted = [(each, "serialization") for each in dict.fromkeys([*models, Signed])]
    _, schemas = models_json_schema(wanted, ref_template=_SCHEMA)  # type: ignore[arg-type]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stromkreis HAN API", "version": version,
            "description": "What a gateway serves in the home: BSI TR-03109-1, detailed specification 2.0, chapter 6.",
        },
        "paths": dict(sorted([*_lists(), *_resources(), *_actions()])),
        "components": {"schemas": schemas["$defs"]},
    }  # fmt: skip


def _answer(schema: dict[str, Any], description: str, also: str | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {JSON: {"schema": schema}}
    if also is not None:
        content[also] = {"schema": {"type": "string"}}
    return {"200": {"description": description, "content": content}}


def _lists() -> list[tuple[str, Any]]:
    uris = {"type": "array", "items": {"type": "string"}}
    roles = sorted({role.value for each in TYPES for role in each.roles})
    paths = ["/smgw/"]
    for role in roles:
        paths += [f"/smgw/{role}/{VERSION}/{part}" for part in ("", "rts/", "exp/", "fas/")]
    paths += [f"{base}/" for each in TYPES for base in _bases(each)]
    return [(path, {"get": {"summary": "URIs one level down", "responses": _answer(uris, "URIs")}}) for path in paths]


def _bases(kind: ResourceType) -> list[str]:
    return [f"/smgw/{role.value}/{VERSION}/{kind.tree.value}/{kind.name}" for role in kind.roles]


def _resources() -> list[tuple[str, Any]]:
    found = []
    for kind in TYPES:
        model: dict[str, Any] = {"$ref": _SCHEMA.format(model=kind.model.__name__)}
        is_export = kind.tree is Tree.EXPORT
        if is_export:
            model = {
                "type": "object", "required": ["type", "id", "data"],
                "properties": {
                    "type": {"const": kind.name}, "id": {"type": "string"}, "data": model,
                    "signature": {"$ref": _SCHEMA.format(model="Signed")},
                },
            }  # fmt: skip
        parameters = [_parameter("id", "path", "Resource id.")]
        parameters += [_parameter(name, "query", _PARAMETERS[name]) for name in kind.parameters]
        summary = (kind.model.__doc__ or "").strip().partition("\n")[0]
        responses = _answer(model, summary, kind.also if is_export else None)
        get = {
            "summary": summary, "parameters": parameters, "responses": responses,
        }  # fmt: skip
        found += [(f"{base}/{{id}}", {"get": get}) for base in _bases(kind)]
    return found


def _parameter(name: str, place: str, text: str) -> dict[str, Any]:
    return {
        "name": name, "in": place, "required": place == "path", "description": text, "schema": {"type": "string"},
    }  # fmt: skip


def _actions() -> list[tuple[str, Any]]:
    found = []
    for action in ACTIONS:
        gives = action.gives
        responses = (
            {"204": {"description": "done"}}
            if gives is None
            else _answer({"$ref": _SCHEMA.format(model=gives.__name__)}, "result")
        )
        takes = {"content": {JSON: {"schema": {"$ref": _SCHEMA.format(model=action.takes.__name__)}}}}
        post = {"summary": action.help, "requestBody": takes, "responses": responses}
        found += [(f"/smgw/{role.value}/{VERSION}/fas/{action.name}", {"post": post}) for role in action.roles]
    return found
