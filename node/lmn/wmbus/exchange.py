"""
Asking a bidirectional wireless meter, without I/O (EN 13757-4 clause 12.6, OMS volume 2 clause 5).

A battery meter only listens for a moment after it has spoken, so the gateway cannot ask when it likes: it waits until
it hears the meter, answers into the window at once, and takes a lost answer up again at the next transmission, with
the frame count bit unchanged so that the meter repeats itself.  A final SND-NKE lets the meter sleep.

States: WAITING for the meter to speak, ASKED for data, ENDED.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from node.lmn.mbus.device import DeviceAddress
from node.lmn.wmbus.layers import is_extended_link, take_extended_link, take_transport
from node.lmn.wmbus.link import ACC_DMD, ACC_NR, REQ_UD2, RSP_UD, SND_IR, SND_NKE, SND_NR, take_link_header
from protocol.errors import LocalProtocolError, RemoteProtocolError

FCB: Final = 0x20
_CI_TO_METER: Final = 0x80
_SPEAKS: Final = frozenset({SND_NR, SND_IR, ACC_NR, ACC_DMD})


def _listens(data: bytes) -> bool:
    """Whether the meter opens a window: the B bit of the ELL, or of the configuration word in modes 0 and 5."""
    if is_extended_link(data[0]):
        return take_extended_link(data)[0].bidirectional
    transport = take_transport(data)
    return transport.mode in (0, 5) and bool(transport.header.configuration & 0x8000)


class State(Enum):
    """Where the conversation is."""

    WAITING = "waiting"
    ASKED = "asked"
    ENDED = "ended"


class DataRequest:
    """
    One request for data to one meter.

    `radio` is the address that the meter's radio has on the link if it is not the meter's own; `answer_timeout_s`
    how long after a request its answer may come (the window of mode C is below half a second; receivers add their
    buffers); after `attempt_count_max` unanswered requests it ends with `error`.
    """

    def __init__(
        self,
        gateway: DeviceAddress,
        meter: DeviceAddress,
        *,
        radio: DeviceAddress | None = None,
        answer_timeout_s: float = 3.0,
        attempt_count_max: int = 3,
    ) -> None:
        self.state = State.WAITING
        self.error: RemoteProtocolError | None = None
        self._gateway = gateway
        self._meter = meter
        self._link = radio or meter
        self._answer_timeout_s = answer_timeout_s
        self._attempts_left = attempt_count_max
        self._access = 0
        self._deadline_s: float | None = None

    def heard(self, datagram: bytes, now_s: float) -> bytes | None:
        """A stripped datagram was received; gives one to be sent at once, if it is our turn."""
        if self.state is State.ENDED:
            return None
        try:
            link = take_link_header(datagram)
            if link.address != self._link:
                return None
            listens = _listens(link.rest)
        except RemoteProtocolError:
            return None
        if link.control & 0x4F == RSP_UD and self.state is State.ASKED:
            self.state, self._deadline_s = State.ENDED, None
            return self._datagram(SND_NKE)
        if link.control in _SPEAKS and listens:
            if not self._attempts_left:
                self._give_up()
                return None
            self._attempts_left -= 1
            self.state, self._deadline_s = State.ASKED, now_s + self._answer_timeout_s
            return self._datagram(REQ_UD2 | FCB)
        return None

    def next_timer_s(self) -> float | None:
        """When `timeout` wants to be called."""
        return self._deadline_s

    def timeout(self, now_s: float) -> None:
        """The window has passed: wait for the meter to speak again, or give up."""
        if self._deadline_s is None or now_s < self._deadline_s:
            raise LocalProtocolError("no timer is due")
        self._deadline_s = None
        self.state = State.WAITING
        if not self._attempts_left:
            self._give_up()

    def _give_up(self) -> None:
        self.state = State.ENDED
        self.error = RemoteProtocolError("no_answer", "the meter does not answer the gateway")

    def _datagram(self, control: int) -> bytes:
        self._access = (self._access + 1) & 0xFF
        header = self._meter.to_transport() + bytes([self._access, 0, 0, 0])
        body = bytes([control]) + self._gateway.to_link() + bytes([_CI_TO_METER]) + header
        return bytes([len(body)]) + body
