"""
The primary station of HDLC in normal response mode: the only one that may speak unasked.

Everything is a turn.  The primary sends what it has and polls; the secondary answers until it sets the final bit,
and with that the turn comes back.  An acknowledgement is read at that checkpoint, and what is not acknowledged
there goes again (ISO/IEC 13239, checkpoint retransmission).  When nothing comes at all, the primary does not repeat
blindly: it asks with an empty RR, and the answer's N(R) says whether the frame or only its answer was lost, so that
no meter ever sees a command twice.

Time comes in as an argument, timers go out as data (`next_timer_s`).  A secondary that has nothing yet is polled
again after `poll_interval_s` for as long as an answer is expected.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from node.lmn.hdlc.frame import Address, Frame, Kind
from node.lmn.hdlc.station import (
    Connected,
    Delivered,
    Disconnected,
    Instruction,
    Parameters,
    Receiver,
    Sender,
    Transmit,
    Unnumbered,
)
from protocol.errors import LocalProtocolError, RemoteProtocolError


class State(Enum):
    """Where the connection stands."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTING = "disconnecting"


@dataclass(frozen=True, slots=True)
class Timing:
    """
    How long a primary station waits, and how often it asks.

    A longer `response_timeout_s` costs a silent bus time, a shorter one talks into slow meters' answers;
    `poll_interval_s` trades bus load for latency.  The whole wait for an answer is the caller's deadline.
    """

    response_timeout_s: float = 2.0
    retry_count_max: int = 3
    poll_interval_s: float = 0.05


class PrimaryStation:
    """
    One connection to one secondary.  Every method that takes `now` returns instructions in their order.

    Raises LocalProtocolError where the state forbids the call; what the secondary sends never raises but ends the
    connection with a `Disconnected` that says why.
    """

    def __init__(
        self, local: Address, remote: Address, proposed: Parameters | None = None, timing: Timing | None = None
    ) -> None:
        self.local = local
        self.remote = remote
        self.state = State.DISCONNECTED
        self._proposed = proposed or Parameters()
        self._timing = timing or Timing()
        self._reset(self._proposed)

    def _reset(self, parameters: Parameters) -> None:
        self._sender = Sender(parameters)
        self._receiver = Receiver()
        self._expecting = False
        self._awaiting = False
        self._retry_count = 0
        self._timer_at: float | None = None

    @property
    def awaiting(self) -> bool:
        """Whether the turn is with the secondary."""
        return self._awaiting

    @property
    def unacknowledged(self) -> bool:
        """Whether something is still to be sent, or sent and not acknowledged."""
        return len(self._sender) > 0

    def next_timer_s(self) -> float | None:
        """When to call `timer`, on the clock that `now` comes from; None for not at all."""
        return self._timer_at

    def connect(self, now: float) -> list[Instruction]:
        """Ask for normal response mode (SNRM)."""
        self._must_be(State.DISCONNECTED)
        self._reset(self._proposed)
        self.state = State.CONNECTING
        return self._ask(Kind.SET_NORMAL_RESPONSE_MODE, now)

    def disconnect(self, now: float) -> list[Instruction]:
        """Take leave (DISC); what was still to be sent is forgotten."""
        self._must_be(State.CONNECTED)
        self._reset(self._proposed)
        self.state = State.DISCONNECTING
        return self._ask(Kind.DISCONNECT, now)

    def send(self, unit: bytes, now: float, *, expect_answer: bool = True) -> list[Instruction]:
        """Send one unit, in segments where it must; with `expect_answer` poll until a unit comes back."""
        self._must_be(State.CONNECTED)
        self._sender.add(unit)
        self._expecting = self._expecting or expect_answer
        return [] if self._awaiting else self._turn(now)

    def poll(self, now: float) -> list[Instruction]:
        """Ask for a unit without sending one."""
        self._must_be(State.CONNECTED)
        self._expecting = True
        return [] if self._awaiting else self._turn(now)

    def timer(self, now: float) -> list[Instruction]:
        """The time of `next_timer_s` has come."""
        if self._timer_at is None or now < self._timer_at:
            return []
        self._timer_at = None
        if not self._awaiting:
            return self._turn(now)
        self._retry_count += 1
        if self._retry_count > self._timing.retry_count_max:
            return self._end("timeout")
        if self.state is State.CONNECTING:
            return self._ask(Kind.SET_NORMAL_RESPONSE_MODE, now)
        if self.state is State.DISCONNECTING:
            return self._ask(Kind.DISCONNECT, now)
        return self._enquire(now)

    def receive(self, frame: Frame, now: float) -> list[Instruction]:
        """A frame from the bus; one of or for somebody else changes nothing."""
        if frame.source != self.remote or frame.destination != self.local:
            return []
        if frame.kind is Kind.UNNUMBERED_INFORMATION:
            return [Unnumbered(frame.information, frame.source)]
        if not self._awaiting:
            return []  # an answer that came after its time; the next checkpoint settles it
        try:
            if self.state is State.CONNECTED:
                return self._receive_connected(frame, now)
            return self._receive_unconnected(frame)
        except RemoteProtocolError as error:
            return self._end(error.reason)

    def _receive_unconnected(self, frame: Frame) -> list[Instruction]:
        if frame.kind is Kind.UNNUMBERED_ACKNOWLEDGE:
            if self.state is State.DISCONNECTING:
                return self._end("requested")
            agreed = self._proposed.agreed_with(Parameters.from_bytes(frame.information))
            self._reset(agreed)
            self.state = State.CONNECTED
            return [Connected(agreed)]
        if frame.kind is Kind.DISCONNECTED_MODE:
            return self._end("requested" if self.state is State.DISCONNECTING else "refused")
        return []

    def _receive_connected(self, frame: Frame, now: float) -> list[Instruction]:
        if frame.kind is Kind.DISCONNECTED_MODE:
            return self._end("disconnected_mode")
        if frame.kind is Kind.FRAME_REJECT:
            return self._end("frame_rejected")
        if frame.kind not in (Kind.INFORMATION, Kind.RECEIVE_READY, Kind.RECEIVE_NOT_READY, Kind.REJECT):
            return []
        out: list[Instruction] = []
        progress = self._sender.acknowledge(frame.receive_number) > 0
        if frame.kind is Kind.INFORMATION:
            before = self._receiver.next_number
            unit = self._receiver.accept(frame)
            progress = progress or self._receiver.next_number != before
            if unit is not None:
                self._expecting = False
                out.append(Delivered(unit))
        if progress:
            self._retry_count = 0
        if not frame.final:
            self._timer_at = now + self._timing.response_timeout_s
            return out
        self._awaiting = False
        self._timer_at = None
        if frame.kind is Kind.RECEIVE_NOT_READY:
            self._timer_at = now + self._timing.poll_interval_s
        elif len(self._sender) or self._receiver.within_unit:
            if not progress:
                self._retry_count += 1
                if self._retry_count > self._timing.retry_count_max:
                    return [*out, *self._end("no_progress")]
            out += self._turn(now)
        elif self._expecting:
            self._timer_at = now + self._timing.poll_interval_s
        return out

    def _turn(self, now: float) -> list[Instruction]:
        if not len(self._sender):
            return self._enquire(now)
        data = b"".join(
            Frame(
                self.remote, self.local, Kind.INFORMATION, last, information, number, self._receiver.next_number, more
            ).to_bytes()
            for number, information, more, last in self._sender.window()
        )
        return self._await([Transmit(data)], now)

    def _enquire(self, now: float) -> list[Instruction]:
        frame = Frame(self.remote, self.local, Kind.RECEIVE_READY, receive_number=self._receiver.next_number)
        return self._await([Transmit(frame.to_bytes())], now)

    def _ask(self, kind: Kind, now: float) -> list[Instruction]:
        information = b""
        if kind is Kind.SET_NORMAL_RESPONSE_MODE and self._proposed != Parameters():
            information = self._proposed.to_bytes()
        return self._await([Transmit(Frame(self.remote, self.local, kind, True, information).to_bytes())], now)

    def _await(self, out: list[Instruction], now: float) -> list[Instruction]:
        self._awaiting = True
        self._timer_at = now + self._timing.response_timeout_s
        return out

    def _end(self, reason: str) -> list[Instruction]:
        self.state = State.DISCONNECTED
        self._reset(self._proposed)
        return [Disconnected(reason)]

    def _must_be(self, state: State) -> None:
        if self.state is not state:
            raise LocalProtocolError(f"the station is {self.state.value}, not {state.value}")
