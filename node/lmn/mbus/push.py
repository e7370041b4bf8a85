"""
A meter that is the primary of its bus and sends by itself: the customer interface of Siemens AMIS TD-3510 and 3511.

It resets the listener (SND_NKE), then sends its registers (SND_UD, `telegram.is_push`) and repeats both until each is
acknowledged, so the gateway answers as a secondary station would, in the time that EN 13757-2 gives one (330 bit times
and 50 ms).  It does so once the registers are durable: what could not be logged is sent again.  Only a frame
with a right check sum to the listener's own address is acknowledged: on a bus with other stations that is theirs to do.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from typing import Final

import trio

from node.lmn.mbus.link import SND_NKE, Ack, FrameReader, LongFrame, ShortFrame, encode_frame
from node.lmn.mbus.telegram import Opener, decode_telegram, is_push
from node.lmn.reception_time import ReceptionTime
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading

LISTENER_ADDRESS: Final = 240  # to whom an AMIS meter sends


async def listen(
    stream: trio.abc.Stream, address: int, opener: Opener | None, *, now: Callable[[], datetime]
) -> AsyncGenerator[list[Reading | RemoteProtocolError], None]:
    """
    One list for each telegram, or for each fault of the line; ends with the stream.

    A telegram is acknowledged when the next list is asked for; whoever could not keep it closes the generator instead.
    With an `opener` only what comes under its keys is taken.  `received_at` is the time of a telegram's first octet.
    """
    reader, arrival = FrameReader(), ReceptionTime(now)
    while data := await stream.receive_some():
        arrival.heard(inside=bool(reader.pending_size))
        for event in reader.feed(bytes(data)):
            if isinstance(event, RemoteProtocolError):
                arrival.failed()
                yield [event]
                continue
            received_at = arrival.ended()
            if isinstance(event, Ack) or event.address != address:
                continue
            if isinstance(event, LongFrame) and is_push(event):
                yield _readings(event, received_at, opener)
                await stream.send_all(encode_frame(Ack()))
            elif isinstance(event, ShortFrame) and event.control == SND_NKE:
                await stream.send_all(encode_frame(Ack()))


def _readings(frame: LongFrame, received_at: datetime, opener: Opener | None) -> list[Reading | RemoteProtocolError]:
    try:
        return [*decode_telegram(frame, received_at, opener, must_be_secured=opener is not None)]
    except RemoteProtocolError as error:
        return [error]
