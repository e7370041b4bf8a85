"""
The tester's side of IEC 62056-21 as a machine without I/O: bytes and time in, instructions out.

Intuition: say `/?!`, hear who the meter is and how fast it can talk, agree on a speed, take the data block.
The maker's baud rate character decides the mode: a digit is mode C (we acknowledge, then both change speed), a letter
A to F is mode B (the meter changes speed without being asked), anything else is mode A (nobody changes).

Complications: with an unanswered sign-on the meter may be asleep, so it is sent again; a data block with a wrong
check is asked for again with NAK, as long as the meter keeps listening; a link that cannot change its speed
acknowledges with the initial one, which mode C allows and mode B does not.
Source: IEC 62056-21:2002 clauses 4.2, 6.3, 6.4 and annex A (flow charts); times in clause 6.4.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from node.lmn.iec62056_21.framing import ACK, NAK, READOUT_SIZE_MAX, Readout, ReadoutReader
from protocol.errors import LocalProtocolError, RemoteProtocolError

INITIAL_BAUDRATE = 300
_MODE_C = {"0": 300, "1": 600, "2": 1200, "3": 2400, "4": 4800, "5": 9600, "6": 19200}
_MODE_B = {"A": 600, "B": 1200, "C": 2400, "D": 4800, "E": 9600, "F": 19200}

RESPONSE_TIMEOUT_S = 2.0  # tr of the standard is at most 1.5 s; USB converters add their buffering
CHARACTER_TIMEOUT_S = 2.0  # ta at most 1.5 s between two characters
# Battery meters sleep until NULs have come for 2.1 to 2.3 s, and want 1.5 to 1.7 s of peace after them (annex B).
_WAKE_UP = bytes(65)  # ten bits each at 300 baud: 2.17 s
_WAKE_UP_S = 10 * len(_WAKE_UP) / INITIAL_BAUDRATE + 1.6
REACTION_TIME_S = 0.2  # no message sooner than 200 ms after the last: slow meters lose its first characters


@dataclass(frozen=True, slots=True)
class Send:
    """Write these 7-bit characters, and wait until they are out, `after_s` from now."""

    data: bytes
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SetBaudrate:
    """Change the speed once everything sent is on the line."""

    baudrate: int


@dataclass(frozen=True, slots=True)
class Done:
    """The readout is complete."""

    readout: Readout


Instruction = Send | SetBaudrate | Done


class Mode(Enum):
    """Who speaks how (clause 6.4): by request at one speed, automatic change, agreed change, pushed."""

    A = auto()
    B = auto()
    C = auto()
    D = auto()


class _State(Enum):
    IDLE = auto()
    SIGNED_ON = auto()
    READING = auto()
    DONE = auto()


def mode_of(baud_character: str) -> tuple[Mode, int]:
    """The mode and the speed that an identification's fifth character announces; mode A stays at 300."""
    if baud_character in _MODE_C:
        return Mode.C, _MODE_C[baud_character]
    if baud_character in _MODE_B:
        return Mode.B, _MODE_B[baud_character]
    return Mode.A, INITIAL_BAUDRATE


class ReadoutClient:
    """
    One readout of one meter.  Call `start`, then `receive` for bytes and `timeout` when `timer_s()` has passed.

    `address` names one of several meters on the line (clause 6.3.1; empty asks whoever is there).  `can_switch` says
    whether the link can change its speed, `baudrate_max` the fastest it should.  `attempts` bounds both the sign-ons
    and the repetitions of a damaged block: raise it on bad lines, at the cost of a longer wait for dead meters.
    `wake_up` says that the meter sleeps on a battery: each request then takes 3.8 s more.  `latency_s` is what the way
    to the meter adds to each answer.
    Raises RemoteProtocolError when the meter is silent, gives nonsense or never ends.
    """

    def __init__(
        self,
        address: str = "",
        *,
        can_switch: bool = True,
        baudrate_max: int = 19200,
        attempts: int = 3,
        wake_up: bool = False,
        latency_s: float = 0.0,
        size_max: int = READOUT_SIZE_MAX,
    ) -> None:
        if len(address) > 32 or not address.isascii() or any(c in "/!\r\n" for c in address):
            raise LocalProtocolError("a device address has at most 32 characters, without / and !")
        self._sign_on = f"/?{address}!\r\n".encode("ascii")
        self._can_switch = can_switch
        self._baudrate_max = baudrate_max
        self._attempts = attempts
        self._wake_up = wake_up
        self._latency_s = latency_s
        self._reader = ReadoutReader(size_max)
        self._heard = False  # something since we last spoke
        self._state = _State.IDLE
        self._asked = 0
        self.mode: Mode | None = None

    @property
    def data_begun(self) -> bool:
        """Whether the data block's first character has come: its arrival is the reception time."""
        return self._reader.in_data

    def timer_s(self) -> float:
        """How long to wait for the next byte before calling `timeout`."""
        return self._latency_s + (CHARACTER_TIMEOUT_S if self._heard else RESPONSE_TIMEOUT_S)

    def start(self) -> list[Instruction]:
        """Sign on, at 300 baud."""
        if self._state is not _State.IDLE:
            raise LocalProtocolError("a client does one readout")
        return self._call()

    def timeout(self) -> list[Instruction]:
        """Nothing came for `timer_s()`: ask again or give up."""
        if self._state is _State.SIGNED_ON:
            return self._call()
        if self._state is _State.READING:
            # A push at the end of the stream's life may lack its last line end.
            for item in self._reader.end():
                if isinstance(item, Readout):
                    return self._finish(item)
            raise RemoteProtocolError("truncated", "the meter fell silent inside its readout")
        raise LocalProtocolError("no answer is awaited")

    def receive(self, data: bytes | bytearray) -> list[Instruction]:
        """Bytes of the line, without parity or with it."""
        if self._state in (_State.IDLE, _State.DONE):
            raise LocalProtocolError("no answer is awaited")
        self._heard = True
        out: list[Instruction] = []
        for item in self._reader.receive(data):
            if isinstance(item, Readout):
                return self._finish(item)
            if item.reason == "noise":
                continue
            if item.reason not in {"bad_checksum", "bad_parity", "bad_character"}:
                raise item
            out += self._repeat(item)
        if self._state is _State.SIGNED_ON and (character := self._reader.baud_character) is not None:
            out += self._identified(character)
        return out

    def _call(self) -> list[Instruction]:
        if self._asked >= self._attempts:
            raise RemoteProtocolError("silent", f"no identification after {self._asked} requests")
        self._asked += 1
        self._state = _State.SIGNED_ON
        self._heard = False
        self._reader.expect_identification()
        if self._wake_up:
            return [SetBaudrate(INITIAL_BAUDRATE), Send(_WAKE_UP), Send(self._sign_on, after_s=_WAKE_UP_S)]
        return [SetBaudrate(INITIAL_BAUDRATE), Send(self._sign_on)]

    def _identified(self, character: str) -> list[Instruction]:
        self._state = _State.READING
        self._asked = 0
        self._heard = False
        self.mode, offered = mode_of(character)
        if self.mode is Mode.A:
            return []
        if self.mode is Mode.B:
            return [SetBaudrate(offered)]
        if offered > self._baudrate_max or not self._can_switch:
            character, offered = "0", INITIAL_BAUDRATE
        acknowledgement = ACK + f"0{character}0\r\n".encode("ascii")
        return [Send(acknowledgement, after_s=REACTION_TIME_S), SetBaudrate(offered)]

    def _repeat(self, fault: RemoteProtocolError) -> list[Instruction]:
        self._asked += 1
        if self._asked >= self._attempts or self.mode is not Mode.C:
            raise fault
        self._heard = False
        self._reader.expect_block()
        return [Send(NAK, after_s=REACTION_TIME_S)]

    def _finish(self, readout: Readout) -> list[Instruction]:
        self._state = _State.DONE
        return [Done(readout)]
