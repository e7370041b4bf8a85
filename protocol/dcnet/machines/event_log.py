"""
What a machine received and what it did, the newest of it: small enough to keep always, and fit for a bug report.

Of a message its kind is kept and the fields that say which round it is about and who is in a set; the coordinator
learns those anyway.  No vector, mask, seed, share, commitment or signature is in it, nor a digest of one: a total is
guessed from its digest.  The nonces of processes are there: everybody in the ring knows them.  Gateways are positions.
So `stromkreis simulate --replay` plays a log with invented keys and
readings, and sees whether a machine goes the same way again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum, StrEnum
from struct import Struct
from typing import Any

import msgpack

from protocol import wire
from protocol.dcnet.machines.effects import (
    Attempted,
    Effect,
    EpochRefused,
    Note,
    Persist,
    Progress,
    ReportMisbehaviour,
    RoundEnded,
    Settled,
)
from protocol.wire.registry import values_of

VERSION = 1
_INQUIRIES = frozenset({wire.Inquiry, wire.DisputedPair, wire.DisputedDeal, wire.PresenceRequest, wire.LeftOut})
_EVENTS_MAX = 40  # some six rounds of a member, 3 KB


class Local(IntEnum):
    """Events that are no messages, and records; numbered on from the codes of messages."""

    DEADLINE = 128
    OFFERED = 129
    APPOINTED = 130
    EXPELLED = 131
    LOST = 132
    LEFT_OUT = 133
    SHARED = 160
    SERVED = 161
    SETTLED = 162
    ROUND_ENDED = 163
    EPOCH_REFUSED = 165


Trigger = type[wire.Message] | Local
_SETS = ("expected", "served", "changed", "roster", "makers", "silent", "members")  # bitmaps, or a position
_TOKENS = ("nonce", "nonces")
_NUMBERS = ("settled", "term", "round", "attempt", "dealer", "position", "outcome", "is_waiting", "has_served")
_pack: Callable[[tuple[Any, ...]], bytes] = (
    msgpack.Packer().pack
)  # one for all: a new one costs eight times the packing
_ARRIVAL = Struct("<dBH")  # seconds, code, position: shorter than any other event
_CODES: dict[type[wire.Message], int] = {kind: code for code, kind in wire.TABLE.items()}
_LOCAL_FIELDS: dict[int, tuple[str, ...]] = {
    Local.OFFERED: ("round", "settled"),
    Local.APPOINTED: ("term",),
    Local.EXPELLED: ("members",),
    Local.LEFT_OUT: ("members",),
}


def _public(kind: type[wire.Message]) -> tuple[str, ...]:
    return tuple(name for name in kind.__dataclass_fields__ if name in _NUMBERS or name in _SETS or name in _TOKENS)


_FIELDS = {code: _public(kind) for code, kind in wire.TABLE.items()} | _LOCAL_FIELDS


_READ = {kind: values_of(_FIELDS[code]) for kind, code in _CODES.items()}
_UNTOLD = Note, ReportMisbehaviour


def name_of(code: int) -> str:
    """The name of a message or local event."""
    return wire.TABLE[code].__name__ if code in wire.TABLE else Local(code).name


class EventLog:
    """
    The last `events_max` events of the machine at `position`, which began with `start`; older ones are counted.

    An event is kept as bytes: thousands of members share a process, and what the garbage collector has to visit costs
    more than the packing.
    """

    __slots__ = ("_events_max", "_kept", "added", "position", "start")

    def __init__(self, position: int, start: Mapping[str, Any], events_max: int = _EVENTS_MAX) -> None:
        self.position = position
        self.start = start
        self.added = 0
        self._events_max = events_max
        self._kept: list[bytes] = []

    def add(
        self, now_s: float, trigger: Trigger, about: wire.Message | tuple[int | bytes, ...], position: int,
        before: StrEnum, after: StrEnum, effects: Sequence[Effect], refused: str = "",
    ) -> None:  # fmt: skip
        """
        Keep an event: at what time, which, the message or a local event's fields, from whom (-1: nobody of the ring).

        `refused` is the reason of a RemoteProtocolError.
        """
        if isinstance(trigger, Local):
            code, fields = int(trigger), about
        else:
            code, fields = _CODES[trigger], _READ[trigger](about)
        row = (now_s, code, position, before, after, refused, fields, _summary(effects) if effects else ())
        self._keep(_pack(row))

    def add_arrival(self, now_s: float, kind: type[wire.Message], position: int) -> None:
        """Keep that a message of the attempt that was opened last came and changed no state; a head hears many."""
        self._keep(_ARRIVAL.pack(now_s, _CODES[kind], position))

    def _keep(self, event: bytes) -> None:
        self._kept.append(event)
        self.added += 1
        if len(self._kept) > self._events_max:
            del self._kept[0]

    def rows(self) -> list[dict[str, Any]]:
        """
        The events in order, as plain values: sets are lists of positions.

        Arrivals before the first other event are left out: which attempt they belong to is gone.
        """
        rows: list[dict[str, Any]] = []
        attempt: dict[str, Any] = {}
        for each in self._kept:
            if len(each) != _ARRIVAL.size:
                rows.append(self._row(*msgpack.unpackb(each)))
                opened = (effect for effect in rows[-1].get("effects", ()) if effect["effect"] == "Open")
                attempt = next(({name: effect[name] for name in ("round", "attempt")} for effect in opened), attempt)
            elif attempt:
                now_s, code, position = _ARRIVAL.unpack(each)
                state = rows[-1]["after"]
                at = {"at_s": now_s, "event": name_of(code), **attempt, "from": position}
                rows.append(at | {"before": state, "after": state})
        return rows

    def _row(
        self, now_s: float, code: int, position: int, before: str, after: str, refused: str, fields: list[Any],
        effects: list[list[Any]],
    ) -> dict[str, Any]:  # fmt: skip
        row: dict[str, Any] = {"at_s": now_s, "event": name_of(code), **_named(code, fields)}
        if position >= 0:
            row["from"] = position
        row |= {"before": str(before), "after": str(after)}
        if refused:
            row["refused"] = refused
        if effects:
            row["effects"] = [{"effect": name_of(code), **_named(code, fields)} for code, fields in effects]
        return row


def _named(code: int, fields: list[Any]) -> dict[str, Any]:
    return {
        name: _plain(name, value) if isinstance(value, bytes) else value
        for name, value in zip(_FIELDS.get(code, ()), fields, strict=True)
    }


def _plain(name: str, value: bytes) -> str | list[int]:
    if name in _TOKENS:
        return value.hex()
    return [i for i in range(8 * len(value)) if value[i // 8] >> i % 8 & 1]


def _summary(effects: Sequence[Effect]) -> list[tuple[int, tuple[Any, ...]]]:
    """The effects in short: of messages of one kind in a row the first, notes and inquiries not at all."""
    out: list[tuple[int, tuple[Any, ...]]] = []
    for each in effects:
        if isinstance(each, _UNTOLD):
            continue
        if isinstance(each, Persist):
            record = each.record
            code = _PROGRESS[record.progress] if isinstance(record, Attempted) else _RECORDS[type(record)]
            out.append((code, ()))
        else:
            kind = type(each.message)
            if kind in _INQUIRIES:  # what it asks in private, and draws from it, is no part of how rounds end
                continue
            if not out or out[-1][0] != _CODES[kind]:
                out.append((_CODES[kind], _READ[kind](each.message)))
    return out


_PROGRESS = {Progress.SHARED: int(Local.SHARED), Progress.SERVED: int(Local.SERVED)}
_RECORDS: dict[type, int] = {
    Settled: int(Local.SETTLED),
    RoundEnded: int(Local.ROUND_ENDED),
    EpochRefused: int(Local.EPOCH_REFUSED),
}
