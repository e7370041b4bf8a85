"""
The wired LMN: who is on the RS-485 bus, and under which HDLC address.

BSI TR-03109-1 Detailspezifikation 8.1 fixes: addresses of two bytes, information of 0..2034 bytes, participants at
2 and 3..126, an address resolution from device identifications (DIN 43849) to addresses, new and silent participants
to be noticed.  The bytes of that resolution stand in DIN VDE 0418-63-7, which is not at hand.  What follows is
therefore OUR definition, built from those facts and from what an open implementation of the older text shows (the
`lmnwired` bridge of OpenEMS: broadcast 127, selectors, time slots with as much guard time, entries of 32
bytes); a certified meter may well differ in the details, and only this file would have to change.

    address byte 1   station << 1          1 gateway, 2 not yet assigned, 3..126 assigned, 127 everybody
    address byte 2   selector << 1 | 1     1 invitation, 3 LKS1 (TLS), 4 LKS1.PSK (SYM)
    broadcast (UI)   slot count 1 | slot length in ms 1 | entry*
    answer (UI)      entry
    entry            address 1 | slot 1 | participant id 14 | sensor id 14 | status 2

An invitation lists who is known; whoever finds itself takes the address it stands with, whoever does not answers
from address 2 in a slot it draws by lot, so that of two newcomers in one slot the check sum sees to it that neither
counts, and both draw again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

import trio

from node.lmn.hdlc.frame import Address, Frame, Kind
from node.lmn.hdlc.link import HdlcBus, HdlcLink
from node.lmn.hdlc.primary import Timing
from node.lmn.hdlc.station import INFORMATION_SIZE_MAX, Parameters
from protocol.errors import LocalProtocolError, RemoteProtocolError

GATEWAY, UNASSIGNED, FIRST, LAST, EVERYBODY = 1, 2, 3, 126, 127
ID_SIZE: Final = 14
ENTRY_SIZE: Final = 2 + 2 * ID_SIZE + 2
PARAMETERS: Final = Parameters(INFORMATION_SIZE_MAX, INFORMATION_SIZE_MAX, 1, 1)


class Selector(IntEnum):
    """What a frame carries."""

    INVITATION = 1
    LKS1 = 3
    LKS1_PSK = 4


@dataclass(frozen=True, slots=True)
class Participant:
    """One entry: ids are 14 characters of DIN 43849; they differ where an adapter stands before a meter."""

    participant_id: str
    sensor_id: str
    address: int = UNASSIGNED
    slot: int = 0

    def to_bytes(self) -> bytes:
        """32 bytes."""
        ids = self.participant_id.encode("ascii") + self.sensor_id.encode("ascii")
        if len(ids) != 2 * ID_SIZE:
            raise LocalProtocolError("ids have 14 characters")
        return bytes((self.address, self.slot)) + ids + b"\x00\x00"

    @classmethod
    def from_bytes(cls, data: bytes) -> Participant:
        """Raises RemoteProtocolError for another length or ids that are no text."""
        if len(data) != ENTRY_SIZE or not data[2:-2].isascii() or not data[2:-2].decode("latin-1").isalnum():
            raise RemoteProtocolError("lmn_participant", "no entry of a participant")
        ids = data[2:-2].decode("ascii")
        return cls(ids[:ID_SIZE], ids[ID_SIZE:], data[0], data[1])


def station(address: int, selector: Selector) -> Address:
    """The two-byte HDLC address of a station for one kind of traffic."""
    return Address(address, selector, 2)


class AddressTable:
    """
    The gateway's list.  It is not persistent: after a restart everybody introduces itself anew.

    `slot_count` times two slot lengths is what an invitation costs the bus; more slots, fewer collisions.
    """

    def __init__(self, slot_count: int = 32, slot_ms: int = 5) -> None:
        self.slot_count = slot_count
        self.slot_ms = slot_ms
        self.participants: dict[str, Participant] = {}
        self._size_max = min(slot_count, (INFORMATION_SIZE_MAX - 2) // ENTRY_SIZE)

    @property
    def window_s(self) -> float:
        """How long answers may come after a broadcast: every slot is followed by as much guard time."""
        return self.slot_count * 2 * self.slot_ms / 1000

    def invitation(self) -> Frame:
        """Ask who else is there, and tell everybody their address."""
        entries = b"".join(participant.to_bytes() for participant in self.participants.values())
        information = (
            bytes((self.slot_count, self.slot_ms)) + entries[: INFORMATION_SIZE_MAX // ENTRY_SIZE * ENTRY_SIZE]
        )
        ends = station(EVERYBODY, Selector.INVITATION), station(GATEWAY, Selector.INVITATION)
        return Frame(*ends, Kind.UNNUMBERED_INFORMATION, False, information)

    def answer(self, frame: Frame) -> Participant | None:
        """
        What a participant says; the new one, if it is new.

        Raises RemoteProtocolError for an entry that is none, and for a bus that is full.
        """
        if frame.kind is not Kind.UNNUMBERED_INFORMATION or frame.destination.upper != GATEWAY:
            return None
        heard = Participant.from_bytes(frame.information)
        if heard.sensor_id in self.participants:
            return None
        taken = {participant.address for participant in self.participants.values()}
        free = next((address for address in range(FIRST, LAST + 1) if address not in taken), None)
        if free is None or len(taken) >= self._size_max:
            raise RemoteProtocolError("lmn_bus_full", "no address is free")
        new = replace(heard, address=free)
        self.participants[heard.sensor_id] = new
        return new


class ParticipantStation:
    """A participant's side of the resolution (simulated meters, and the tests)."""

    def __init__(self, sensor_id: str, participant_id: str | None = None) -> None:
        self.me = Participant(participant_id or sensor_id, sensor_id)

    def receive(self, frame: Frame, draw: Callable[[int], int]) -> tuple[float, Frame] | None:
        """
        (seconds to wait, answer) to a broadcast; None for silence.

        `draw(n)` gives a number below n.  Raises RemoteProtocolError for a broadcast that is none.
        """
        if frame.destination.upper != EVERYBODY or frame.kind is not Kind.UNNUMBERED_INFORMATION:
            return None
        body = frame.information
        if len(body) < 2 or (len(body) - 2) % ENTRY_SIZE or not body[0]:
            raise RemoteProtocolError("lmn_broadcast", "no list of participants")
        listed = (Participant.from_bytes(body[at : at + ENTRY_SIZE]) for at in range(2, len(body), ENTRY_SIZE))
        mine = next((entry for entry in listed if entry.sensor_id == self.me.sensor_id), None)
        self.me = replace(self.me, address=UNASSIGNED if mine is None else mine.address)
        if mine is not None:
            return None
        slot = draw(body[0])
        answer = replace(self.me, slot=slot).to_bytes()
        ends = station(GATEWAY, Selector.INVITATION), station(self.me.address, Selector.INVITATION)
        return slot * 2 * body[1] / 1000, Frame(*ends, Kind.UNNUMBERED_INFORMATION, True, answer)


async def broadcast(bus: HdlcBus, table: AddressTable, frame: Frame) -> list[Participant]:
    """Send an invitation and take the answers; the new participants."""
    new = []
    async with bus.turn:
        await bus.transmit(frame.to_bytes())
        deadline = trio.current_time() + table.window_s
        while trio.current_time() < deadline:
            for answer in await bus.frames(deadline):
                try:
                    participant = table.answer(answer)
                except RemoteProtocolError as error:
                    bus.error_counts[error.reason] += 1
                    continue
                if participant is not None:
                    new.append(participant)
    return new


async def discover(bus: HdlcBus, table: AddressTable, *, round_count_max: int = 8) -> list[Participant]:
    """
    Invite until nobody new answers; the last invitation tells the newest its address.

    The bound keeps a participant that never accepts its address from holding the bus.
    """
    found: list[Participant] = []
    for _ in range(round_count_max):
        new = await broadcast(bus, table, table.invitation())
        if not new:
            break
        found += new
    return found


def lmn_link(bus: HdlcBus, participant: Participant, selector: Selector, timing: Timing | None = None) -> HdlcLink:
    """A connection to a participant for one kind of traffic (TLS or SYM)."""
    return HdlcLink(bus, station(GATEWAY, selector), station(participant.address, selector), PARAMETERS, timing)
