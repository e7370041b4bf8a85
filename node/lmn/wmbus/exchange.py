"""
Asking a bidirectional wireless meter, without I/O (EN 13757-4 clause 12.6, OMS volume 2 clause 5).

A battery meter only listens for a moment after it has spoken, so the gateway cannot ask when it likes: it waits until
it hears the meter, answers into the window at once, and takes a lost answer up again at the next transmission, with
the frame count bit unchanged so that the meter repeats itself.  A final SND-NKE lets the meter sleep.

States: WAITING for the meter to speak, ASKED for data, ENDED.  `PollSchedule` asks each of our meters once a quarter
hour.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.layers import CI_AFL, is_extended_link, take_extended_link, take_fragment, take_transport
from node.lmn.mbus.makers.diehl import named_address
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


def senders(datagram: bytes) -> tuple[DeviceAddress, ...]:
    """
    Who a stripped datagram says it is from: the radio module, then the meter where the transport layer names another.

    Nothing of it is proved, and what an encrypted extended link layer hides is not seen.  Empty where it is damaged.
    """
    try:
        link = take_link_header(datagram)
    except RemoteProtocolError:
        return ()
    data = link.rest
    try:
        if is_extended_link(data[0]):
            extended, data = take_extended_link(data)
            data = b"" if extended.encrypted else data[2:] if extended.session is not None else data
        if data[:1] == bytes([CI_AFL]):
            data = take_fragment(data).payload
        meter = take_transport(data).header.address if data else None
    except RemoteProtocolError:
        meter = None
    named = named_address(link.address, link.rest)
    meter = named if meter in (None, link.address) else meter
    return (link.address,) if meter == link.address else (link.address, meter)


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

    @property
    def meter(self) -> DeviceAddress:
        """Who is asked."""
        return self._meter

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


class PollSchedule:
    """
    Which meters to ask when: each that `is_ours` once a period of the clock, when it speaks.

    A meter that never listens is asked in vain once and stays in the list of requests; so at most one for each meter.
    """

    def __init__(
        self, gateway: DeviceAddress, is_ours: Callable[[DeviceAddress], bool], period_s: float = 900.0
    ) -> None:
        self._gateway = gateway
        self._is_ours = is_ours
        self._period_s = period_s
        self._asked: dict[DeviceAddress, int] = {}

    def request(self, datagram: bytes, clock_s: float, pending: list[DataRequest]) -> DataRequest | None:
        """A request to the meter that has just spoken, if its turn has come and none to it is `pending`."""
        who = senders(datagram)
        meter = next((address for address in who if self._is_ours(address)), None)
        period = int(clock_s // self._period_s)
        if meter is None or self._asked.get(meter) == period or any(each.meter == meter for each in pending):
            return None
        self._asked[meter] = period
        return DataRequest(self._gateway, meter, radio=who[0])
