"""
The secondary station of HDLC in normal response mode: it speaks when polled, and only then.

The simulated meters live on it.  `receive` takes a frame and says what it meant; the meter computes, queues its
answer with `send`, and `respond` gives what the turn allows.  The three steps are apart because a meter's answer
depends on what the frame delivered, and has to go out in the same turn.
"""

from __future__ import annotations

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


class SecondaryStation:
    """
    One station on the bus; it takes the client's address from SNRM, and one client at a time.

    What a primary sends wrongly is answered with FRMR or DM, never raised.
    """

    def __init__(self, local: Address, capabilities: Parameters | None = None) -> None:
        self.local = local
        self.connected = False
        self._capabilities = capabilities or Parameters()
        self._client: Address | None = None
        self._answer: list[Frame] = []
        self._polled = False
        self._start(Parameters())

    def _start(self, parameters: Parameters) -> None:
        self.sender = Sender(parameters)
        self._receiver = Receiver()

    def send(self, unit: bytes) -> None:
        """Queue one unit for the next turns.  Raises LocalProtocolError without a connection."""
        if not self.connected:
            raise LocalProtocolError("no client is connected")
        self.sender.add(unit)

    def receive(self, frame: Frame) -> list[Instruction]:
        """A frame from the bus; call `respond` after it."""
        if frame.destination != self.local:
            return []
        if frame.kind is Kind.UNNUMBERED_INFORMATION:
            return [Unnumbered(frame.information, frame.source)]
        if frame.kind is Kind.SET_NORMAL_RESPONSE_MODE:
            return self._accept_client(frame)
        if not self.connected or frame.source != self._client:
            self._reply(frame, Kind.DISCONNECTED_MODE)
            return []
        if frame.kind is Kind.DISCONNECT:
            self.connected = False
            self._reply(frame, Kind.UNNUMBERED_ACKNOWLEDGE)
            return [Disconnected("requested")]
        try:
            return self._receive_connected(frame)
        except RemoteProtocolError as error:
            self.connected = False
            self._reply(frame, Kind.FRAME_REJECT)
            return [Disconnected(error.reason)]

    def respond(self) -> list[Instruction]:
        """What to transmit now, if it is our turn: all that the window allows, the last frame with the final bit."""
        frames, self._answer = self._answer, []
        if self._polled and self._client is not None:
            self._polled = False
            number = self._receiver.next_number
            frames = [
                Frame(self._client, self.local, Kind.INFORMATION, last, information, ns, number, more)
                for ns, information, more, last in self.sender.window()
            ] or [Frame(self._client, self.local, Kind.RECEIVE_READY, receive_number=number)]
        return [Transmit(b"".join(frame.to_bytes() for frame in frames))] if frames else []

    def _accept_client(self, frame: Frame) -> list[Instruction]:
        try:
            agreed = self._capabilities.agreed_with(Parameters.from_bytes(frame.information))
        except RemoteProtocolError:
            self._reply(frame, Kind.DISCONNECTED_MODE)
            return []
        self._client = frame.source
        self.connected = True
        self._polled = False
        self._start(agreed)
        self._reply(frame, Kind.UNNUMBERED_ACKNOWLEDGE, agreed.to_bytes())  # some clients insist on parameters
        return [Connected(agreed)]

    def _receive_connected(self, frame: Frame) -> list[Instruction]:
        if frame.kind not in (Kind.INFORMATION, Kind.RECEIVE_READY, Kind.RECEIVE_NOT_READY, Kind.REJECT):
            self._reply(frame, Kind.FRAME_REJECT)
            return []
        self.sender.acknowledge(frame.receive_number)
        unit = self._receiver.accept(frame) if frame.kind is Kind.INFORMATION else None
        self._polled = self._polled or frame.final
        return [] if unit is None else [Delivered(unit)]

    def _reply(self, frame: Frame, kind: Kind, information: bytes = b"") -> None:
        self._answer.append(Frame(frame.source, self.local, kind, True, information))
