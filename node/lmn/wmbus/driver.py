"""
A radio module on a trio stream: readings as they come, and requests to bidirectional meters in between.

The reception time is taken when the octets arrive, before anything is decoded, so that it is never late by the
decoding (REQ.WMBUS.apl.40).  Telegrams of unknown meters are normal on the air: a telegram of a meter without a
key is no fault of the link, so errors are handed on and listening goes on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from typing import Final

import trio

from node.lmn.mbus.device import DeviceAddress
from node.lmn.wmbus.exchange import DataRequest, PollSchedule, State, senders
from node.lmn.wmbus.framing import Datagram
from node.lmn.wmbus.modules import Module
from node.lmn.wmbus.receiver import Receiver
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading

Batch = list[Reading | RemoteProtocolError]
_MODULE_COUNT_MAX: Final = 64


def _now() -> datetime:
    return datetime.now(UTC)


async def listen(
    stream: trio.abc.Stream,
    module: Module,
    receiver: Receiver,
    *,
    requests: list[DataRequest] | None = None,
    plan: PollSchedule | None = None,
    is_ours: Callable[[DeviceAddress], bool] | None = None,
    now: Callable[[], datetime] = _now,
) -> AsyncGenerator[Batch, None]:
    """
    One batch per datagram or fault, until the module hangs up; the module is set up first where it must be.

    `requests` are data requests that take their turn when their meters speak; finished ones are taken out of the
    list, and one that failed gives its error as a batch.  `plan` makes such requests.  With `is_ours` a neighbour's
    telegram is not even decoded: an empty batch says that the radio lives.
    """
    if set_up := module.set_up():
        await stream.send_all(set_up)
    reader = module.reader()
    ours = OwnMeterFilter(is_ours) if is_ours is not None else None
    waiting = [] if requests is None else requests
    while data := await stream.receive_some():
        received_at = now()
        for event in reader.feed(bytes(data)):
            if isinstance(event, RemoteProtocolError):
                yield [event]
                continue
            if ours is not None and not ours.sent(event.octets):
                yield []
                continue
            request = None if plan is None else plan.request(event.octets, received_at.timestamp(), waiting)
            if request is not None:
                waiting.append(request)
            for octets in _replies(event, waiting):
                await stream.send_all(module.transmission(octets))
            yield _readings(receiver, event, received_at)
        for error in _expired(waiting):
            yield [error]


class OwnMeterFilter:
    """
    Whether a telegram may be of one of our meters, by the addresses in it.

    A radio module that has spoken for one of them stays known: in the later fragments of a message it is alone.
    """

    def __init__(self, is_ours: Callable[[DeviceAddress], bool]) -> None:
        self._is_ours = is_ours
        self._modules: set[DeviceAddress] = set()

    def sent(self, datagram: bytes) -> bool:
        """Whether one of our meters may have sent this datagram."""
        who = senders(datagram)
        if any(map(self._is_ours, who)):
            if not self._is_ours(who[0]):
                if len(self._modules) >= _MODULE_COUNT_MAX:  # anyone can name our meter: the memory is bounded
                    self._modules.clear()
                self._modules.add(who[0])
            return True
        return bool(who) and who[0] in self._modules


def _replies(event: Datagram, requests: list[DataRequest]) -> list[bytes]:
    now_s = trio.current_time()
    replies = (request.heard(event.octets, now_s) for request in requests)
    return [octets for octets in replies if octets is not None]


def _expired(requests: list[DataRequest]) -> list[RemoteProtocolError]:
    now_s = trio.current_time()
    for request in requests:
        due_s = request.next_timer_s()
        if due_s is not None and due_s <= now_s:
            request.timeout(now_s)
    errors = [request.error for request in requests if request.error is not None]
    requests[:] = [request for request in requests if request.state is not State.ENDED]
    return errors


def _readings(receiver: Receiver, event: Datagram, received_at: datetime) -> Batch:
    try:
        return list(receiver.decode(event.octets, received_at))
    except RemoteProtocolError as error:
        return [RemoteProtocolError(error.reason, error.detail, offset=event.offset)]
