"""
The DLMS driver: one reading of one meter, or the readings a meter pushes.

It joins what the other files keep apart: link, association, discovery of registers, scalers, clock.  A register is
read with its scaler and unit in the same association, because a mantissa without them is not a value.  An attribute
that a meter refuses costs only itself; anything else ends the session, and the session has a deadline as a whole.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, Literal, TypeVar

import trio

from node.lmn.dlms.axdr import Data, Type, octets, structure
from node.lmn.dlms.client import ASSOCIATION, Association, DlmsClient
from node.lmn.dlms.clock import CosemDateTime
from node.lmn.dlms.fields import Access, Attribute
from node.lmn.dlms.listing import CLOCK, profile_readings, scaler_unit
from node.lmn.dlms.push import PushReceiver
from node.lmn.dlms.security import InvocationCounter, ReplayGuard
from node.lmn.dlms.transport import HdlcTransport, Transport, WrapperReader, WrapperTransport, converse
from node.lmn.dlms.values import reading_of
from node.lmn.hdlc.frame import Address, Frame, FrameReader
from node.lmn.hdlc.link import HdlcBus, HdlcLink
from node.lmn.hdlc.primary import Timing
from node.lmn.hdlc.station import Parameters
from node.lmn.mbus.link import Frame as MbusFrame
from node.lmn.mbus.link import FrameReader as MbusReader
from node.lmn.reception_time import ReceptionTime
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading

T = TypeVar("T")
DATA, REGISTER, EXTENDED_REGISTER, DEMAND_REGISTER, PROFILE, CLOCK_CLASS = 1, 3, 4, 5, 7, 8
_SCALER_ATTRIBUTE: Final = {REGISTER: 3, EXTENDED_REGISTER: 3, DEMAND_REGISTER: 4}
_ENERGY_CLASSES: Final = frozenset(_SCALER_ATTRIBUTE)
_OBJECT_COUNT_MAX: Final = 2000


@dataclass(frozen=True, slots=True)
class MeterSettings:
    """
    How to read one meter.

    `registers` are (class, code) pairs; None asks the meter what it has (classes 3 to 5) and reads all of it.
    `exchange_timeout_s` bounds one question and answer, `session_timeout_s` everything from connect to release; a
    longer one keeps a bus longer from its other meters.
    """

    device: str
    association: Association = field(default_factory=Association)
    registers: Sequence[tuple[int, Obis]] | None = None
    exchange_timeout_s: float = 10.0
    session_timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class HdlcSettings:
    """Stations and link parameters; the server's address is its logical and physical device (IEC 62056-46)."""

    client: Address = field(default_factory=lambda: Address(16))
    server: Address = field(default_factory=lambda: Address(1))
    parameters: Parameters = field(default_factory=Parameters)
    timing: Timing = field(default_factory=Timing)


def hdlc_transport(bus: HdlcBus, settings: HdlcSettings | None = None) -> HdlcTransport:
    """A transport to one meter on a bus."""
    chosen = settings or HdlcSettings()
    return HdlcTransport(HdlcLink(bus, chosen.client, chosen.server, chosen.parameters, chosen.timing))


async def read_meter(
    stream: trio.abc.Stream,
    settings: MeterSettings,
    *,
    hdlc: HdlcSettings | None = None,
    wrapper: tuple[int, int] = (16, 1),
    counter: InvocationCounter | None = None,
    guard: ReplayGuard | None = None,
    now: Callable[[], datetime] | None = None,
) -> list[Reading]:
    """
    Read a meter once over `stream`: HDLC where `hdlc` is given, else the TCP wrapper with `wrapper` ports.

    `counter` and `guard` carry the invocation counters from session to session.  Raises RemoteProtocolError
    (`dlms_session_timeout` for the whole session's deadline).
    """

    async def read(session: MeterSession) -> list[Reading]:
        return await session.read_registers(now)

    return await _in_session(_transport(stream, hdlc, wrapper), settings, counter, guard, read)


async def read_objects(
    stream: trio.abc.Stream,
    settings: MeterSettings,
    *,
    hdlc: HdlcSettings | None = None,
    wrapper: tuple[int, int] = (16, 1),
    counter: InvocationCounter | None = None,
    guard: ReplayGuard | None = None,
) -> list[tuple[int, Obis]]:
    """(class, code) of all that an association may see; parameters and errors as `read_meter`."""
    return await _in_session(_transport(stream, hdlc, wrapper), settings, counter, guard, MeterSession.objects)


def _transport(stream: trio.abc.Stream, hdlc: HdlcSettings | None, wrapper: tuple[int, int]) -> Transport:
    return hdlc_transport(HdlcBus(stream), hdlc) if hdlc is not None else WrapperTransport(stream, *wrapper)


async def _in_session(
    transport: Transport,
    settings: MeterSettings,
    counter: InvocationCounter | None,
    guard: ReplayGuard | None,
    work: Callable[[MeterSession], Awaitable[T]],
) -> T:
    session = MeterSession(transport, settings, counter, guard)
    with trio.move_on_after(settings.session_timeout_s) as scope:
        try:
            await session.open()
            result = await work(session)
        finally:
            with trio.move_on_after(settings.exchange_timeout_s, shield=True):
                await session.close()
    if scope.cancelled_caught:
        raise RemoteProtocolError("dlms_session_timeout", f"no end within {settings.session_timeout_s} s")
    return result


class MeterSession:
    """An open association with one meter, as calls.  Everything raises RemoteProtocolError."""

    def __init__(
        self,
        transport: Transport,
        settings: MeterSettings,
        counter: InvocationCounter | None = None,
        guard: ReplayGuard | None = None,
    ) -> None:
        self._transport = transport
        self._settings = settings
        self._client = DlmsClient(settings.association, counter, guard)

    async def open(self) -> None:
        """Link and association."""
        await self._transport.open()
        await converse(self._transport, self._client.associate(), self._settings.exchange_timeout_s)

    async def close(self) -> None:
        """Release what is open; a meter that does not answer is left as it is."""
        try:
            if self._client.associated:
                await converse(self._transport, self._client.release(), self._settings.exchange_timeout_s)
        except RemoteProtocolError:
            self._client.associated = False
        await self._transport.close()

    async def get(self, class_id: int, obis: Obis, attribute: int, access: Access | None = None) -> Data:
        """One attribute."""
        conversation = self._client.get(Attribute(class_id, obis, attribute), access)
        return await converse(self._transport, conversation, self._settings.exchange_timeout_s)

    async def set(self, class_id: int, obis: Obis, attribute: int, data: Data) -> None:
        """Write one attribute."""
        conversation = self._client.set(Attribute(class_id, obis, attribute), data)
        await converse(self._transport, conversation, self._settings.exchange_timeout_s)

    async def get_list(self, attributes: list[Attribute]) -> list[Data | int]:
        """Several attributes at once; an int is a data-access-result for that one."""
        return await converse(self._transport, self._client.get_list(attributes), self._settings.exchange_timeout_s)

    async def set_list(self, values: list[tuple[Attribute, Data]]) -> list[int]:
        """Write several attributes at once; a data-access-result for each, 0 for success."""
        return await converse(self._transport, self._client.set_list(values), self._settings.exchange_timeout_s)

    async def action(self, class_id: int, obis: Obis, method: int, parameters: Data | None = None) -> Data | None:
        """Call a method."""
        conversation = self._client.action(Attribute(class_id, obis, method), parameters)
        return await converse(self._transport, conversation, self._settings.exchange_timeout_s)

    async def objects(self) -> list[tuple[int, Obis]]:
        """What this association may see: (class, code) in the meter's order."""
        view = await self.get(15, ASSOCIATION, 2)
        if view.type is not Type.ARRAY or len(view.value) > _OBJECT_COUNT_MAX:
            raise RemoteProtocolError("dlms_object_list", "no object list, or an endless one")
        found = []
        for entry in view.value:
            parts: Sequence[Data] = entry.value if entry.type is Type.STRUCTURE else ()
            if len(parts) < 3 or parts[0].type is not Type.LONG_UNSIGNED or parts[2].type is not Type.OCTET_STRING:
                raise RemoteProtocolError("dlms_object_list", "an entry without class and name")
            if len(parts[2].value) != 6:
                raise RemoteProtocolError("dlms_object_list", "a logical name has 6 bytes")
            found.append((parts[0].value, Obis.from_bytes(parts[2].value)))
        return found

    async def clock(self) -> datetime | None:
        """The meter's own time; None where it has no clock or does not know."""
        try:
            data = await self.get(CLOCK_CLASS, CLOCK, 2)
        except RemoteProtocolError as error:
            if not _refused(error):
                raise
            return None
        if data.type not in (Type.OCTET_STRING, Type.DATE_TIME):
            return None
        return CosemDateTime.from_bytes(data.value).to_datetime()

    async def read_registers(self, now: Callable[[], datetime] | None = None) -> list[Reading]:
        """The registers of the settings, stamped with the meter's clock and the time of reception."""
        wanted = self._settings.registers
        if wanted is None:
            wanted = [item for item in await self.objects() if item[0] in _ENERGY_CLASSES]
        when = await self.clock()
        readings = []
        for class_id, obis in wanted:
            try:
                readings.append(await self._register(class_id, obis, when, now))
            except RemoteProtocolError as error:
                if not _refused(error):
                    raise
                template = Reading(self._settings.device, obis, None, quality=Quality.METER_ERROR)
                readings.append(replace(template, record={"refused": error.reason}))
        return readings

    async def _register(
        self, class_id: int, obis: Obis, when: datetime | None, now: Callable[[], datetime] | None
    ) -> Reading:
        scale = _SCALER_ATTRIBUTE.get(class_id)
        units = (0, None) if scale is None else scaler_unit(await self.get(class_id, obis, scale))
        value = await self.get(class_id, obis, 2)
        received = now() if now is not None else None
        status = None
        if class_id == EXTENDED_REGISTER:
            data = await self.get(class_id, obis, 4)
            status = data.value if isinstance(data.value, int) else None
        template = Reading(self._settings.device, None, None, status=status, measured_at=when, received_at=received)
        return reading_of(value, obis, template, *units)

    async def profile(
        self,
        obis: Obis,
        begin: datetime | None = None,
        end: datetime | None = None,
        entries: tuple[int, int] | None = None,
    ) -> list[Reading]:
        """
        Rows of a profile: between two times, or entries from..to (1 is the oldest), or all.

        The scalers of its registers are read first.
        """
        columns_data = await self.get(PROFILE, obis, 3)
        columns = []
        for entry in columns_data.value if columns_data.type is Type.ARRAY else ():
            parts: Sequence[Data] = entry.value if entry.type is Type.STRUCTURE else ()
            kinds = [part.type for part in parts[:3]]
            if kinds != [Type.LONG_UNSIGNED, Type.OCTET_STRING, Type.INTEGER] or len(parts[1].value) != 6:
                raise RemoteProtocolError("dlms_profile", "a capture object without class, name and attribute")
            columns.append((parts[0].value, Obis.from_bytes(parts[1].value), parts[2].value))
        units = {}
        for class_id, code, attribute in columns:
            if class_id in _SCALER_ATTRIBUTE and attribute == 2 and code not in units:
                units[code] = scaler_unit(await self.get(class_id, code, _SCALER_ATTRIBUTE[class_id]))
        access = None
        if begin is not None and end is not None:
            access = by_range(begin, end)
        elif entries is not None:
            access = by_entry(*entries)
        buffer = await self.get(PROFILE, obis, 2, access)
        return profile_readings(buffer, columns, units, Reading(self._settings.device, None, None))


def by_range(begin: datetime, end: datetime) -> Access:
    """Selective access 1 of a profile: rows whose clock lies between (DLMS UA 1000-1, class 7)."""
    clock = structure(
        Data(Type.LONG_UNSIGNED, CLOCK_CLASS),
        octets(CLOCK.to_bytes()),
        Data(Type.INTEGER, 2),
        Data(Type.LONG_UNSIGNED, 0),
    )
    limits = (octets(CosemDateTime.from_datetime(limit).to_bytes()) for limit in (begin, end))
    return Access(1, structure(clock, *limits, Data(Type.ARRAY, ())))


def by_entry(first: int, last: int) -> Access:
    """Selective access 2 of a profile: entries `first`..`last` (1 is the oldest, `last` 0 the newest), all columns."""
    numbers = (Data(Type.DOUBLE_LONG_UNSIGNED, first), Data(Type.DOUBLE_LONG_UNSIGNED, last))
    return Access(2, structure(*numbers, Data(Type.LONG_UNSIGNED, 1), Data(Type.LONG_UNSIGNED, 0)))


PushFraming = Literal["hdlc", "wrapper", "mbus"]
_PushReader = FrameReader | WrapperReader | MbusReader


def _holds(reader: _PushReader) -> bool:
    return bool(reader.pending_size if isinstance(reader, MbusReader) else reader.pending)


def _now() -> datetime:
    return datetime.now(UTC)


async def pushes(
    stream: trio.abc.ReceiveStream,
    receiver: PushReceiver,
    *,
    silence_timeout_s: float,
    framing: PushFraming = "hdlc",
    now: Callable[[], datetime] = _now,
) -> AsyncGenerator[Sequence[Reading | RemoteProtocolError], None]:
    """
    What a meter pushes, a telegram at a time, for as long as the stream lasts; a broken one comes as an error.

    All readings of a telegram have the time at which its first byte came.

    A telegram stays whole because an account takes it so: a register that is not in it counts as one that the meter
    does not have.  Raises RemoteProtocolError `dlms_silence` after `silence_timeout_s` without a byte.
    """
    reader: _PushReader
    reader = FrameReader() if framing == "hdlc" else WrapperReader() if framing == "wrapper" else MbusReader()
    arrival = ReceptionTime(now)
    while True:
        with trio.move_on_after(silence_timeout_s) as scope:
            data = bytes(await stream.receive_some())
        if scope.cancelled_caught:
            raise RemoteProtocolError("dlms_silence", f"nothing for {silence_timeout_s} s")
        if not data:
            return
        arrival.heard(inside=_holds(reader) or receiver.in_message)
        for item in reader.feed(data):
            found = _received(receiver, item, arrival.began_at)
            if isinstance(item, RemoteProtocolError):
                arrival.failed()
            elif not receiver.in_message:
                arrival.ended()
            if found:
                yield found


def _received(
    receiver: PushReceiver,
    item: Frame | MbusFrame | tuple[int, int, bytes] | RemoteProtocolError,
    received_at: datetime | None,
) -> Sequence[Reading | RemoteProtocolError]:
    """What came out of a frame, a packet or the damage between them."""
    try:
        match item:
            case RemoteProtocolError():
                raise item
            case Frame():
                return receiver.frame(item, received_at)
            case (_, _, packet):
                return receiver.message(packet, received_at)
            case _:
                return list(receiver.mbus_frame(item, received_at))
    except RemoteProtocolError as error:
        receiver.reset()
        return [error]


def _refused(error: RemoteProtocolError) -> bool:
    return error.reason.startswith("dlms_access_")
