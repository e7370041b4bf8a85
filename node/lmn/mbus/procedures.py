"""
What the primary station says, in which order: reading, selecting and searching, without any I/O.

Each procedure is a generator: it yields an `Ask` (a frame, and what would be an answer to it) and is resumed with
what came of it.  So the order, the frame count bit, the retries and the search tree are tried without a clock.

The intuition of the search: a meter is selected by a mask over its eight digits.  Where nobody acknowledges the whole
branch is empty; where the request for data brings a valid telegram there is one meter; where it brings garbage there
are several, and the next digit tells them apart.  An acknowledgement alone proves nothing, since several meters
acknowledge in unison.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, TypeVar

from node.lmn.mbus.application import CI_APPLICATION_RESET, CI_LONG, CI_SELECT, take_long_header
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.link import (
    ADDRESS_MAX,
    ADDRESS_SELECTED,
    DATA_SIZE_MAX,
    FCB,
    REQ_UD2,
    RSP_UD,
    SND_NKE,
    SND_UD,
    Frame,
    LongFrame,
    ShortFrame,
)
from node.lmn.mbus.records import MORE_RECORDS_FOLLOW, ManufacturerData, parse_records
from protocol.errors import LocalProtocolError, RemoteProtocolError

RETRY_COUNT_MAX: Final = 2  # EN 13757-2: after that the station is taken as silent
TELEGRAM_COUNT_MAX: Final = 32
METER_COUNT_MAX: Final = 250
PROBE_COUNT_MAX: Final = 5000  # 250 meters need about 3,000; a bus that is all noise would have 10^8
AS_IT_IS: Final = (b"",)  # the telegrams that a meter gives without a page being selected
WILDCARD: Final = "F"
FABRICATION_NUMBER: Final = b"\x0c\x78"  # DIF and VIF: eight digits of BCD


class Expect(Enum):
    """What would be an answer."""

    ACK = "ack"
    DATA = "data"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Ask:
    """A frame to send and the answer to wait for."""

    frame: Frame
    expect: Expect


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer that was expected."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Silent:
    """Nobody said anything in time."""


@dataclass(frozen=True, slots=True)
class Garbled:
    """Something came, but no valid answer: a disturbance, or several stations at once."""

    error: RemoteProtocolError


Outcome = Answered | Silent | Garbled
Result = TypeVar("Result")
Procedure = Generator[Ask, Outcome, Result]


@dataclass(frozen=True, slots=True)
class SecondaryAddress:
    """
    Eight digits (F is a wildcard for one), manufacturer (FFFF), version (FF) and device type (FF): all wildcards.

    `fabrication` makes it the enhanced selection: a number of eight digits that nobody can change, where two meters
    were given the same address by mistake (the M-Bus documentation's enhanced selection: a record 0C 78 behind the
    address).
    """

    number: str = WILDCARD * 8
    manufacturer: int = 0xFFFF
    version: int = 0xFF
    medium: int = 0xFF
    fabrication: str = ""

    def __post_init__(self) -> None:
        if len(self.number) != 8 or any(digit not in "0123456789ABCDEF" for digit in self.number):
            raise LocalProtocolError("a secondary address has eight digits, or F for any")
        if self.fabrication and (len(self.fabrication) != 8 or not set(self.fabrication) <= set("0123456789F")):
            raise LocalProtocolError("a fabrication number has eight digits, or F for any")

    @classmethod
    def of(cls, device: DeviceAddress) -> SecondaryAddress:
        """The address of exactly this meter."""
        return cls(device.number, device.manufacturer, device.version, device.medium)

    def to_bytes(self) -> bytes:
        """The octets of the selection frame: eight, and six more with a fabrication number."""
        address = DeviceAddress(self.manufacturer, self.number, self.version, self.medium).to_transport()
        return address + FABRICATION_NUMBER + bytes.fromhex(self.fabrication)[::-1] if self.fabrication else address

    def matches(self, device: DeviceAddress) -> bool:
        """Whether the meter would feel selected."""
        return (
            all(mask in (WILDCARD, digit) for mask, digit in zip(self.number, device.number, strict=True))
            and self.manufacturer in (0xFFFF, device.manufacturer)
            and self.version in (0xFF, device.version)
            and self.medium in (0xFF, device.medium)
        )


Address = int | SecondaryAddress | DeviceAddress
_SECONDARY = re.compile(
    r"(?P<address>[0-9A-F]{8}|[0-9A-F]{16}|[0-9A-F][A-Z]{3}[0-9A-F]{10})(?:\+(?P<fabrication>[0-9F]{8}))?"
)


def parse_address(text: str) -> Address:
    """
    A primary address 0 to 250, or a secondary one, letters of either case.

    Secondary: eight digits (F for any); sixteen, as M-Bus tools print them (number, then manufacturer, version and
    device type as on the wire); or a meter's 14 characters of DIN 43849.  `+` and eight digits are its fabrication
    number.  Raises LocalProtocolError for anything else.
    """
    if text.isdecimal() and len(text) < 4 and int(text) <= ADDRESS_MAX:
        return int(text)
    match = _SECONDARY.fullmatch(text.upper())
    if match is None:
        raise LocalProtocolError(
            "an M-Bus address is 0 to 250, or a secondary one: 8 digits (F: any), 16 digits or 14 characters, and"
            " +8 digits for a fabrication number"
        )
    address, fabrication = match["address"], match["fabrication"] or ""
    if len(address) == 8:
        return SecondaryAddress(address, fabrication=fabrication)
    if len(address) == 14:
        device = DeviceAddress.from_text(address, 0xFF)
    else:
        device = DeviceAddress.from_transport(bytes.fromhex(address[:8])[::-1] + bytes.fromhex(address[8:]))
    return SecondaryAddress(device.number, device.manufacturer, device.version, device.medium, fabrication)


def _ask(frame: Frame, expect: Expect, retry_count_max: int = RETRY_COUNT_MAX) -> Procedure[Outcome]:
    outcome: Outcome = Silent()
    for _ in range(retry_count_max + 1):
        outcome = yield Ask(frame, expect)
        if isinstance(outcome, Answered):
            break
    return outcome


def _data_frame(outcome: Outcome) -> LongFrame:
    match outcome:
        case Answered(LongFrame() as frame):
            return frame
        case Garbled(error):
            raise error
        case _:
            raise RemoteProtocolError("no_answer", "the meter does not answer")


def select(address: SecondaryAddress) -> Procedure[None]:
    """Reset whoever was selected, select one meter.  Raises RemoteProtocolError where nobody acknowledges."""
    yield Ask(ShortFrame(SND_NKE, ADDRESS_SELECTED), Expect.ACK)
    outcome = yield from _ask(LongFrame(SND_UD, ADDRESS_SELECTED, CI_SELECT, address.to_bytes()), Expect.ACK)
    if isinstance(outcome, Silent):
        raise RemoteProtocolError("no_answer", "no meter has that secondary address")


def parse_page(text: str) -> bytes:
    """
    What selects a page of a meter, in hexadecimal: a CI field and the octets behind it; `default` asks as it is.

    The CI field is 50 (application reset with a sub-code, EN 13757-3) or one of the maker's own, A0 to B7: others could
    change the meter.  Raises LocalProtocolError for anything else.
    """
    if text == "default":
        return b""
    try:
        page = bytes.fromhex(text)
    except ValueError:
        page = b""
    is_selection = bool(page) and (page[0] == CI_APPLICATION_RESET or 0xA0 <= page[0] <= 0xB7)
    if not is_selection or len(page) > 1 + DATA_SIZE_MAX:
        raise LocalProtocolError(
            f"a page is default, or what selects it in hexadecimal, CI 50 or A0 to B7 first (50A0, B1), not {text!r}"
        )
    return page


def select_page(station: int, page: bytes, count_bit: int) -> Procedure[None]:
    """Send what selects a page.  Raises RemoteProtocolError where nobody acknowledges."""
    frame = LongFrame(SND_UD | count_bit, station, page[0], page[1:])
    outcome = yield from _ask(frame, Expect.ACK)
    if isinstance(outcome, Silent):
        raise RemoteProtocolError("page_not_selected", "the meter does not acknowledge what selects a page of it")


def read_telegrams(address: Address, pages: Sequence[bytes] = AS_IT_IS) -> Procedure[list[LongFrame]]:
    """
    All telegrams of one meter, by primary address (0..250, 254) or by secondary address.

    Starts with SND_NKE so that the frame count bit is known; a meter that ignores it may still answer the request.
    `pages` are asked for one after the other: a CI field and octets that select one (`parse_page`), or nothing for the
    telegrams that the meter gives as it is.  The frame count bits of SND_UD and REQ_UD2 toggle each for itself
    (EN 13757-2).  Raises RemoteProtocolError where the meter stays silent, garbled, or sends more telegrams than any
    meter would.
    """
    if isinstance(address, DeviceAddress):
        address = SecondaryAddress.of(address)
    if isinstance(address, SecondaryAddress):
        yield from select(address)
        station = ADDRESS_SELECTED
    else:
        station = address
        yield from _ask(ShortFrame(SND_NKE, station), Expect.ACK, retry_count_max=0)
    frames: list[LongFrame] = []
    count_bit = selection_bit = FCB
    for page in pages:
        if page:
            yield from select_page(station, page, selection_bit)
            selection_bit ^= FCB
        more = True
        while more:
            if len(frames) >= TELEGRAM_COUNT_MAX:
                raise RemoteProtocolError("too_many_telegrams", f"more than {TELEGRAM_COUNT_MAX} telegrams")
            frame = _data_frame((yield from _ask(ShortFrame(REQ_UD2 | count_bit, station), Expect.DATA)))
            frames.append(frame)
            count_bit ^= FCB
            more = more_follows(frame)
    if station == ADDRESS_SELECTED:
        yield Ask(ShortFrame(SND_NKE, ADDRESS_SELECTED), Expect.ACK)
    return frames


def more_follows(frame: LongFrame) -> bool:
    """Whether the telegram ends with DIF 1F, "more records follow"; a broken one says nothing of the kind."""
    if frame.ci != CI_LONG or MORE_RECORDS_FOLLOW not in frame.data:
        return False
    try:
        last = list(parse_records(frame.data[12:]))[-1:]
    except RemoteProtocolError:
        return False
    return bool(last) and isinstance(last[0], ManufacturerData) and last[0].more_records_follow


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a search: the meters, and the masks under which several could not be distinguished."""

    meters: tuple[DeviceAddress, ...]
    collisions: tuple[SecondaryAddress, ...]


def search(mask: SecondaryAddress | None = None, *, thorough: bool = False) -> Procedure[Found]:
    """
    All meters on the bus by their secondary addresses, at most 250.

    Two telegrams at once may by rare chance make a valid third: with `thorough` every other digit beside a meter
    found under wildcards is tried too, up to 72 more probes per meter.  Finishes for any behaviour of the bus: after
    5,000 probes what is left is given as collisions.
    """
    meters: dict[DeviceAddress, None] = {}
    collisions: list[SecondaryAddress] = []
    pending = [mask or SecondaryAddress()]
    probe_count = 0
    while pending and len(meters) < METER_COUNT_MAX:
        probe = pending.pop()
        probe_count += 1
        if probe_count > PROBE_COUNT_MAX:
            collisions.append(probe)
            continue
        yield Ask(ShortFrame(SND_NKE, ADDRESS_SELECTED), Expect.ACK)
        outcome = yield from _ask(LongFrame(SND_UD, ADDRESS_SELECTED, CI_SELECT, probe.to_bytes()), Expect.ACK, 1)
        if isinstance(outcome, Silent):
            continue
        answer = yield Ask(ShortFrame(REQ_UD2 | FCB, ADDRESS_SELECTED), Expect.DATA)
        found = _identity(answer)
        if found is not None and probe.matches(found):
            meters[found] = None
            if thorough:
                pending.extend(_beside(probe, found))
            continue
        position = probe.number.find(WILDCARD)
        if position < 0:
            collisions.append(probe)
            continue
        for digit in "9876543210":
            number = probe.number[:position] + digit + probe.number[position + 1 :]
            pending.append(replace(probe, number=number))
    yield Ask(ShortFrame(SND_NKE, ADDRESS_SELECTED), Expect.ACK)
    return Found(tuple(meters), tuple(collisions))


def _beside(probe: SecondaryAddress, found: DeviceAddress) -> list[SecondaryAddress]:
    """Masks that together match whatever `probe` matches, except the number of `found`."""
    return [
        replace(probe, number=found.number[:position] + digit + probe.number[position + 1 :])
        for position in range(8)
        if probe.number[position] == WILDCARD
        for digit in "0123456789"
        if digit != found.number[position]
    ]


def _identity(outcome: Outcome) -> DeviceAddress | None:
    match outcome:
        case Answered(LongFrame(ci=ci, data=data)) if ci == CI_LONG and len(data) >= 12:
            return take_long_header(data)[0].address
        case _:
            return None


def is_answer(frame: Frame, ask: Ask) -> bool:
    """Whether `frame` answers `ask`: the right kind, from a meter, from the address asked."""
    if ask.expect is Expect.ACK:
        return not isinstance(frame, ShortFrame | LongFrame)
    if not isinstance(frame, LongFrame) or not isinstance(ask.frame, ShortFrame):
        return False
    is_response = frame.control & 0x4F == RSP_UD
    return is_response and (ask.frame.address > ADDRESS_MAX or frame.address == ask.frame.address)
