"""
The one table of what the HAN API has: resource types, exports and actions, for which roles, with which schemas.

The public text of BSI TR-03109-1 defines paths, methods and parameters and leaves the types to its main part; these
are ours (docs/reference/han.md, docs/reference/han-openapi.json are made from this table).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import BaseModel

from node.han import models
from node.han.accounts import Account, Role
from node.han.answers import CSV, XML
from node.han.ar2418.export import ar_file, file_ids
from node.han.query import Query
from node.han.systems import proxy, proxy_ids
from node.han.view import View

VERSION: Final = "v1"


class Tree(StrEnum):
    """Part of the path: resources one by one, and exports in an envelope that may be signed."""

    READ = "rts"
    EXPORT = "exp"


@dataclass(frozen=True, slots=True)
class ResourceType:
    """A type: who may read it, how its resources are listed and read, which query parameters it takes."""

    name: str
    tree: Tree
    roles: frozenset[Role]
    model: type[BaseModel]
    ids: Callable[[View, Account], list[str]]
    read: Callable[[View, Account, str, Query], BaseModel]
    parameters: tuple[str, ...] = ()
    also: str = CSV
    """Of exports: the type beside JSON."""


@dataclass(frozen=True, slots=True)
class Action:
    """An action: who may start it, what it takes and gives."""

    name: str
    roles: frozenset[Role]
    takes: type[BaseModel]
    gives: type[BaseModel] | None
    help: str


_CONSUMER: Final = frozenset({Role.CONSUMER})
_TECHNICIAN: Final = frozenset({Role.TECHNICIAN})
_SYSTEM: Final = frozenset({Role.CLS})
_BOTH: Final = _CONSUMER | _TECHNICIAN
_TIMES: Final = ("q.fromtime", "q.totime", "q.count", "q.signed")

TYPES: Final = (
    ResourceType("Device", Tree.READ, _BOTH, models.Device, View.only_gateway, View.device),
    ResourceType("SelfTest", Tree.READ, _BOTH, models.SelfTest, View.only_gateway, View.last_self_test),
    ResourceType("Certificate", Tree.READ, _BOTH, models.Certificate, View.certificate_ids, View.certificate),
    ResourceType("Contract", Tree.READ, _CONSUMER, models.Contract, View.own_id, View.contract),
    ResourceType("Meter", Tree.READ, _CONSUMER, models.Meter, View.meter_ids, View.meter),
    ResourceType("Reading", Tree.READ, _CONSUMER, models.Reading, View.meter_ids, View.reading),
    ResourceType("UseCase", Tree.READ, _CONSUMER, models.UseCase, View.profile_ids, View.use_case),
    ResourceType("Registers", Tree.READ, _CONSUMER, models.Registers, View.profile_ids, View.registers),
    ResourceType("Aggregation", Tree.READ, _CONSUMER, models.Aggregation, View.only_gateway, View.aggregation),
    ResourceType("Network", Tree.READ, _TECHNICIAN, models.Network, View.only_gateway, View.network),
    ResourceType("MeterStatus", Tree.READ, _TECHNICIAN, models.MeterStatus, View.meter_ids, View.meter_status),
    ResourceType("Proxy", Tree.READ, _SYSTEM, models.Proxy, proxy_ids, proxy),
    ResourceType(
        "Reading", Tree.EXPORT, _CONSUMER, models.ReadingExport, View.meter_ids, View.readings, (*_TIMES, "q.obis")
    ),
    ResourceType(
        "Interval", Tree.EXPORT, _CONSUMER, models.IntervalExport, View.meter_ids, View.intervals,
        (*_TIMES, "q.obis"),
    ),
    ResourceType(
        "ArFile", Tree.EXPORT, _CONSUMER, models.ArFile, file_ids, ar_file,
        ("q.fromtime", "q.totime", "q.signed"), also=XML,
    ),
    ResourceType(
        "ConsumerLog", Tree.EXPORT, _CONSUMER, models.LogExport, View.own_id, View.consumer_log,
        (*_TIMES, "q.level", "q.type"),
    ),
    ResourceType(
        "SystemLog", Tree.EXPORT, _TECHNICIAN, models.LogExport, View.only_gateway, View.system_log,
        (*_TIMES, "q.level", "q.type"),
    ),
)  # fmt: skip

ACTIONS: Final = (
    Action(
        "SelfTest", _BOTH, models.Empty, models.SelfTest, "Test the gateway now; refused within a minute of the last."
    ),
    Action("SetPassword", _CONSUMER, models.Password, None, "Have another password; all sessions end."),
)


def types_of(role: Role, tree: Tree) -> dict[str, ResourceType]:
    """What a role may read in a part of the path, by name."""
    return {each.name: each for each in TYPES if each.tree is tree and role in each.roles}


def actions_of(role: Role) -> dict[str, Action]:
    """What a role may start, by name."""
    return {each.name: each for each in ACTIONS if role in each.roles}
