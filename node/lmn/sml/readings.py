"""
From SML messages to readings.

Only here does a message become a statement about a meter, so here stand the rules that a gateway must keep:

  - nothing of a file counts where any check sum in it is wrong (`decode_file` raises);
  - numbers stay integer mantissas with a scaler [REQ.TLSHDLC.SMGW.90];
  - a register's time: absolute if the meter sends one; else, where the meter sends its seconds index both for the
    value and for the message, reception minus their difference [REQ.TLSHDLC.SMGW.60].  A value time of 0 seconds
    (DZG) is no time.  Without any time of its own a value is as old as the message.

One defect is mended: DZG's meters send powers from 327.68 W on, of the sum and of each phase, unsigned in a signed
integer of two or three bytes, so that they read as negative.  DZG names two ranges of serial numbers for it
(volkszaehler/libsml#136): there it is mended always.  Outside them only a meter contradicts itself that counts one way
(its list has no 2.8.x) and whose status says that energy is drawn while a power is negative; a two-way meter's status
may be of another moment than its power.  Bits of that status, from 0: 0..7 constant 0x04, 8 running, 11 direction
(1: feeding in), 21..31 zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any, Final

from node.lmn.sml.bodies import (
    GetCosemResponse,
    GetListResponse,
    GetProcParameterResponse,
    GetProfileListResponse,
    GetProfilePackResponse,
    Message,
    OpenResponse,
)
from node.lmn.sml.codec import Number, Opaque
from node.lmn.sml.messages import decode_file
from node.lmn.sml.values import (
    LOCAL_TIMESTAMP,
    SEC_INDEX,
    ListEntry,
    PeriodEntry,
    Time,
    Tree,
    TupelEntry,
    Value,
)
from node.lmn.timestamps import time_of_measurement
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading

_When = tuple[datetime | None, int | None]
_VALID: Final = Quality.VALID
_DZG_POWERS: Final = frozenset(bytes((1, 0, c, 7, 0, 255)) for c in (16, 36, 56, 76))
_FEED_IN: Final = b"\x01\x00\x02\x08"
_DZG_UNSIGNED_SERIALS: Final = ((42_000_000, 48_999_999), (55_000_000, 58_999_999))
_DZG_DRAWING_MASK, _DZG_DRAWING = 0xFFE0_09FF, 0x104
VALUE_ATTRIBUTE, SCALER_UNIT_ATTRIBUTE, STATUS_ATTRIBUTE, CAPTURE_TIME_ATTRIBUTE = 2, 3, 4, 5
_TUPEL_QUANTITIES: Final = {"pa": 1, "r1": 5, "r4": 8, "ma": 2, "r2": 6, "r3": 7}  # OBIS group C


@lru_cache(maxsize=4096)
def device_id(server_id: bytes) -> str:
    """
    The text on the meter's plate, `1EMH0012345678`, for a server id by DIN 43863-5; hexadecimal for any other.

    The ten octets are 0a (older meters: 09), medium, three letters, block, serial number in four octets.
    """
    serial = int.from_bytes(server_id[6:], "big")
    maker = server_id[2:5]
    known = len(server_id) == 10 and server_id[0] in (9, 10) and server_id[1] <= 0xF and serial < 10**8
    if not (known and maker.isalpha() and maker.isupper()):
        return server_id.hex()
    return f"{server_id[1]:X}{maker.decode('ascii')}{server_id[5]:02X}{serial:08d}"


def server_id(device: str) -> bytes:
    """The server id of a device id: the inverse of `device_id`.  Raises ValueError for text that is neither form."""
    if len(device) == 14 and device[1:4].isalpha() and device[1:4].isupper() and device[6:].isdecimal():
        head = bytes((10, int(device[0], 16))) + device[1:4].encode("ascii") + bytes.fromhex(device[4:6])
        return head + int(device[6:]).to_bytes(4, "big")
    return bytes.fromhex(device)


_obis = lru_cache(maxsize=4096)(Obis.from_bytes)


def _absolute(time: Time) -> datetime:
    when = datetime.fromtimestamp(time.seconds, UTC)
    if time.choice != LOCAL_TIMESTAMP:
        return when
    offset_min = time.local_offset_min + time.season_offset_min
    if not -24 * 60 < offset_min < 24 * 60:
        raise RemoteProtocolError("sml_time", "a local offset of a day or more")
    return when.astimezone(timezone(timedelta(minutes=offset_min)))


def _when(time: Time | None, sent: Time | None, received_at: datetime | None) -> _When:
    """(measured_at, meter_seconds) of a value with `time` in a message that the meter sent at `sent`."""
    if time is None or time[:2] == (SEC_INDEX, 0):
        if sent is None:
            return None, None
        return (None, sent.seconds) if sent.choice == SEC_INDEX else (_absolute(sent), None)
    if time.choice != SEC_INDEX:
        return _absolute(time), None
    if received_at is None or sent is None or sent.choice != SEC_INDEX or sent.seconds < time.seconds:
        return None, time.seconds
    return time_of_measurement(received_at, sent.seconds, time.seconds), time.seconds


class _Builder:
    """Makes the readings of one meter in one file."""

    def __init__(self, server: bytes, sent: Time | None, received_at: datetime | None) -> None:
        self.server = server
        self.device = device_id(server)
        self.sent = sent
        self.received_at = received_at
        self.sent_s = sent.seconds if sent is not None and sent.choice == SEC_INDEX else None
        self.now = _when(None, sent, received_at)
        self.out: list[Reading] = []

    def add(
        self,
        name: bytes,
        value: Value,
        scaler: int | None,
        unit: int | None,
        status: int | None,
        *,
        when: _When,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        plain: int | str | bytes | None
        if type(value) is Number:
            plain = value.value
        elif isinstance(value, bytes) or value is None:
            plain = value
        else:
            plain, kind = _unusual(value)
            record = {**(record or {}), "type": kind}
        if len(name) != 6:
            record = {**(record or {}), "name": name.hex()}
        self.out.append(
            Reading(
                self.device,
                _obis(name) if len(name) == 6 else None,
                plain,
                scaler or 0,
                unit or None,
                status,
                when[0],
                when[1],
                self.received_at,
                record=record or {},
            )
        )

    def add_entries(self, entries: Iterable[ListEntry]) -> None:
        """The registers of a list; the usual kind, a number with an OBIS code, without detours."""
        device, received_at, now, append = self.device, self.received_at, self.now, self.out.append
        for name, status, time, unit, scaler, value, signature in entries:
            measured_at, seconds = now
            record: dict[str, Any] = {} if signature is None else {"signature": signature.hex()}
            if time is not None:
                measured_at, seconds = _when(time, self.sent, received_at)
                if seconds is not None and self.sent_s is not None and seconds != self.sent_s:
                    record["reference_seconds"] = self.sent_s
            if type(value) is Number and len(name) == 6:
                append(
                    Reading(
                        device, _obis(name), value[0], scaler or 0, unit or None, status, measured_at, seconds,
                        received_at, _VALID, record,
                    )
                )  # fmt: skip
            else:
                self.add(name, value, scaler, unit, status, when=(measured_at, seconds), record=record)

    def add_tree(self, tree: Tree) -> None:
        """Every register below `tree`: a list or period entry, a tuple, or an OBIS code with COSEM attributes."""
        name, value, children = tree
        if isinstance(value, ListEntry):
            self.add_entries((value,))
        elif isinstance(value, PeriodEntry):
            self.add(value.obj_name, value.value, value.scaler, value.unit, None, when=self.now)
        elif isinstance(value, TupelEntry):
            self._add_tupel(value)
        elif value is not None:
            self.add(name, value, None, None, None, when=self.now)
        attributes = {int.from_bytes(child.name, "big"): child for child in children or ()}
        if len(name) == 6 and VALUE_ATTRIBUTE in attributes:
            self._add_object(name, attributes)
        else:
            for child in children or ():
                self.add_tree(child)

    def _add_object(self, name: bytes, attributes: Mapping[int, Tree]) -> None:
        """A COSEM register [REQ.TLSHDLC.SMGW.80]: the text has `status` and `capture_time` both as attribute 4."""
        scaler_unit = attributes.get(SCALER_UNIT_ATTRIBUTE)
        parts = [child.value for child in scaler_unit.children or ()] if scaler_unit is not None else []
        scaler, unit = ([*map(_integer, parts), None, None])[:2]
        status: int | None = None
        when = self.now
        for attribute in (STATUS_ATTRIBUTE, CAPTURE_TIME_ATTRIBUTE):
            value = attributes[attribute].value if attribute in attributes else None
            if isinstance(value, Time):
                when = _when(value, self.sent, self.received_at)
            elif isinstance(value, Number):
                status = value.value
        content = attributes[VALUE_ATTRIBUTE].value
        if not isinstance(content, (PeriodEntry, TupelEntry, ListEntry)):
            self.add(name, content, scaler, unit, status, when=when)

    def _add_tupel(self, tupel: TupelEntry) -> None:
        when = _when(tupel.sec_index, self.sent, self.received_at)
        for quantity, group_c in _TUPEL_QUANTITIES.items():
            unit, scaler, value = (getattr(tupel, f"{part}_{quantity}") for part in ("unit", "scaler", "value"))
            name = bytes((1, 0, group_c, 8, 0, 255))
            self.add(name, Number(value, 8, signed=True), scaler, unit, tupel.status, when=when)


def _integer(value: Any) -> int | None:
    return value.value if isinstance(value, Number) else None


def _unusual(value: Value) -> tuple[int | str | bytes | None, str]:
    match value:
        case bool():
            return int(value), "boolean"
        case Time():
            return (value.seconds if value.choice == SEC_INDEX else _absolute(value).isoformat()), "time"
        case Opaque():
            return value.data, "list"
    raise AssertionError("every other value is plain")


def _sends_unsigned(server: bytes, entries: tuple[ListEntry, ...]) -> bool:
    """Whether what a DZG meter sends as a negative power of two or three bytes is a positive one."""
    serial = int.from_bytes(server[6:], "big")
    if any(low <= serial <= high for low, high in _DZG_UNSIGNED_SERIALS):
        return True
    if any(entry.obj_name.startswith(_FEED_IN) for entry in entries):
        return False
    return any(entry.status is not None and entry.status & _DZG_DRAWING_MASK == _DZG_DRAWING for entry in entries)


def _mend_dzg(server: bytes, entries: tuple[ListEntry, ...]) -> tuple[ListEntry, ...]:
    if not _sends_unsigned(server, entries):
        return entries
    return tuple(
        entry._replace(value=Number(entry.value.value + (1 << 8 * entry.value.size), entry.value.size, signed=False))
        if entry.obj_name in _DZG_POWERS
        and isinstance(entry.value, Number)
        and entry.value.value < 0
        and entry.value.size <= 3
        else entry
        for entry in entries
    )


def readings(messages: Iterable[Message], received_at: datetime | None = None) -> list[Reading]:
    """
    What the messages of one file say of registers, in their order.  `received_at` is the gateway's (aware) time.

    The values of a profile are past ones and say so: `record["period"]` is their row.
    Raises RemoteProtocolError for a time that cannot be, and a profile whose rows do not fit its header.
    """
    out: list[Reading] = []
    sent: Time | None = None
    for message in messages:
        body = message.body
        match body:
            case GetListResponse():
                builder = _Builder(body.server_id, body.act_sensor_time or sent, received_at)
                entries = body.val_list
                if body.server_id[2:5] == b"DZG":
                    entries = _mend_dzg(body.server_id, entries)
                builder.add_entries(entries)
            case OpenResponse():
                sent = body.ref_time
                continue
            case GetProcParameterResponse():
                builder = _Builder(body.server_id, sent, received_at)
                builder.add_tree(body.parameter_tree)
            case GetCosemResponse():
                builder = _Builder(body.server_id, sent, received_at)
                children = tuple(
                    item.content._replace(name=bytes((item.attribute & 0xFF,))) for item in body.attributes
                )
                builder.add_tree(Tree(body.obj_name, None, children))
            case GetProfileListResponse():
                builder = _Builder(body.server_id, body.act_time or sent, received_at)
                when = _when(body.val_time, builder.sent, received_at)
                for cell in body.period_list:
                    builder.add(
                        cell.obj_name, cell.value, cell.scaler, cell.unit, body.status, when=when, record={"period": 0}
                    )  # fmt: skip
            case GetProfilePackResponse():
                builder = _Builder(body.server_id, body.act_time or sent, received_at)
                for period, row in enumerate(body.period_list):
                    when = _when(row.val_time, builder.sent, received_at)
                    if len(row.value_list) != len(body.header_list):
                        raise RemoteProtocolError("sml_count", "a profile's row has other columns than its header")
                    for column, content in zip(body.header_list, row.value_list, strict=True):
                        builder.add(
                            column.obj_name, content.value, column.scaler, column.unit, row.status, when=when,
                            record={"period": period},
                        )  # fmt: skip
            case _:
                continue
        out += builder.out
    return out


def frame_readings(payload: bytes, received_at: datetime | None = None) -> list[Reading]:
    """The readings of one SML file as a frame carries it.  Raises RemoteProtocolError; then nothing of it counts."""
    return readings(decode_file(payload), received_at)
