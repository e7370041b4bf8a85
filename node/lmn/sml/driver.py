"""
Reads SML meters over a byte stream: asks, or listens to what they push.

The link holds nothing but the transport's bounded buffer, and every wait has a deadline.  A broken frame costs that
frame: it goes to `on_error` and the link waits for the next.  A stream that ends, breaks or stays silent raises
RemoteProtocolError, and the caller gives up this connection and nothing else.

A frame's time of reception is that of its first byte, not its last: at 9600 baud a frame takes half a second, and
the deadline of [REQ.TLSHDLC.SMGW.50] counts from the first character.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from datetime import datetime

import trio

from node.lmn.reception_time import ReceptionTime
from node.lmn.sml.bodies import Message
from node.lmn.sml.client import Exchange, SmlClient, attentions
from node.lmn.sml.messages import decode_file
from node.lmn.sml.readings import readings
from node.lmn.sml.transport import FRAME_SIZE_MAX, FrameError, TransportReader
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.reading import Reading

Now = Callable[[], datetime]
OnError = Callable[[RemoteProtocolError], None]

_CHUNK_SIZE = 4096
_FAULTS_MAX = 256  # then whoever waits hears of it: a stream may hold a fault every eight bytes


def _ignore(_: RemoteProtocolError) -> None:
    pass


class SmlLink:
    """
    One stream to one meter, or to several that share it.

    `now` is the gateway's clock (aware).  `on_error` hears of each broken frame; a link made without it drops them.
    `is_confidential` says that the stream is a TLS session with the meter; keys and certificates go through no other.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        now: Now,
        *,
        on_error: OnError = _ignore,
        frame_size_max: int = FRAME_SIZE_MAX,
        is_confidential: bool = False,
    ) -> None:
        self._stream = stream
        self._on_error = on_error
        self._is_confidential = is_confidential
        self._reader = TransportReader(frame_size_max)
        self._arrival = ReceptionTime(now)
        self._files: deque[tuple[list[Message], datetime]] = deque()
        self._faults_left = _FAULTS_MAX

    async def receive(self, timeout_s: float) -> tuple[list[Message], datetime]:
        """
        The next good file and when its first byte came.

        Raises RemoteProtocolError: `meter_silent` after `timeout_s`, `only_faults` after 256 broken frames,
        `connection_closed`, `connection_lost`.
        """
        self._faults_left = _FAULTS_MAX
        return await self._receive(timeout_s)

    async def _receive(self, timeout_s: float) -> tuple[list[Message], datetime]:
        with trio.move_on_after(timeout_s):
            while not self._files:
                if self._faults_left <= 0:
                    self._faults_left = _FAULTS_MAX
                    raise RemoteProtocolError("only_faults", f"{_FAULTS_MAX} broken frames, and not the one awaited")
                self._take(await self._receive_some())
            return self._files.popleft()
        raise RemoteProtocolError("meter_silent", f"no good frame within {timeout_s} s")

    async def _receive_some(self) -> bytes:
        try:
            data = await self._stream.receive_some(_CHUNK_SIZE)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise RemoteProtocolError("connection_lost", "the stream broke") from error
        if not data:
            for item in self._reader.end():
                if isinstance(item, FrameError):
                    self._fail(item)
            raise RemoteProtocolError("connection_closed", "the meter's side closed the stream")
        return bytes(data)

    def _take(self, data: bytes) -> None:
        self._arrival.heard(inside=self._reader.in_frame)
        for item in self._reader.feed(data):
            if isinstance(item, FrameError):
                self._arrival.failed()
                self._fail(item)
                continue
            began_at = self._arrival.ended()
            try:
                self._files.append((decode_file(item.payload), began_at))
            except RemoteProtocolError as error:
                self._fail(error)

    def _fail(self, error: RemoteProtocolError) -> None:
        self._faults_left -= 1
        self._on_error(error)

    async def ask(self, exchange: Exchange, timeout_s: float) -> tuple[list[Message], datetime]:
        """
        Send a request and wait for its answer; what the meter says unasked meanwhile is passed over.

        Raises RemoteProtocolError as `receive` does, LocalProtocolError for what must not go in clear.
        """
        if exchange.needs_tls and not self._is_confidential:
            raise LocalProtocolError("a key or certificate goes to a meter through TLS only")
        self._faults_left = _FAULTS_MAX
        with trio.move_on_after(timeout_s):
            try:
                await self._stream.send_all(exchange.frame)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise RemoteProtocolError("connection_lost", "the stream broke") from error
            while True:
                messages, received_at = await self._receive(timeout_s)
                answer = exchange.answer(messages)
                if answer is not None:
                    return answer, received_at
        raise RemoteProtocolError("meter_silent", f"no answer within {timeout_s} s")

    async def ask_readings(self, exchange: Exchange, timeout_s: float) -> list[Reading]:
        """
        The readings of the answer to a request.

        Raises RemoteProtocolError as `receive` does, and `meter_refused` with the attention number where the answer
        is a refusal only.
        """
        answer, received_at = await self.ask(exchange, timeout_s)
        found = readings(answer, received_at)
        refusals = attentions(answer)
        if not found and refusals:
            raise RemoteProtocolError("meter_refused", f"attention {refusals[0].attention_no.hex()}")
        return found

    async def next_pushed(self, silence_s_max: float) -> list[Reading]:
        """
        The readings of the next file that the meter sends unasked.

        Raises RemoteProtocolError as `receive` does; `silence_s_max` is several times the meter's interval.
        """
        self._faults_left = _FAULTS_MAX
        while True:
            messages, received_at = await self._receive(silence_s_max)
            try:
                found = readings(messages, received_at)
            except RemoteProtocolError as error:
                self._fail(error)
                continue
            if found:
                return found

    def pushed(self, silence_s_max: float) -> AsyncIterator[list[Reading]]:
        """`next_pushed` for ever, as an iterator that may be left at any time."""
        return _Pushed(self, silence_s_max)


class _Pushed(AsyncIterator[list[Reading]]):
    def __init__(self, link: SmlLink, silence_s_max: float) -> None:
        self._link = link
        self._silence_s_max = silence_s_max

    async def __anext__(self) -> list[Reading]:
        return await self._link.next_pushed(self._silence_s_max)


async def read_meter(
    stream: trio.abc.Stream, client: SmlClient, now: Now, *, timeout_s: float, list_name: bytes | None = None
) -> list[Reading]:
    """
    Ask the meter on `stream` for a list of its registers, once.  Raises RemoteProtocolError as `SmlLink` does.

    `timeout_s`: a meter at 9600 baud needs about a second for a long list; raising it keeps a silent bus occupied.
    """
    return await SmlLink(stream, now).ask_readings(client.get_list(list_name), timeout_s)
