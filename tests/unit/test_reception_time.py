"""The time of reception is that of a message's first byte, whatever lay in the reader before it came."""

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from loadtest.meters.dlms import push_frames, push_mbus_frames
from node.lmn.dlms.apdu import DataNotification
from node.lmn.dlms.axdr import Data, Type, octets, structure
from node.lmn.dlms.driver import PushFraming, pushes
from node.lmn.dlms.push import PushReceiver
from node.lmn.dlms.transport import wrap
from node.lmn.hdlc.frame import Address
from node.lmn.iec62056_21.driver import listen
from node.lmn.mbus.device import DeviceAddress
from node.lmn.wmbus.driver import listen as wireless_listen
from node.lmn.wmbus.framing import amber_frame
from node.lmn.wmbus.modules import Module
from node.lmn.wmbus.receiver import Receiver
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading

BEGIN = datetime(2026, 6, 1, tzinfo=UTC)
ENERGY, EXPORT = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 2, 8, 0, 255)
TELEGRAM = b"/SKR5\\2METER\r\n\r\n1-0:1.8.0(000042*kWh)\r\n1-0:2.8.0(000007*kWh)\r\n!\r\n"
Batches = AsyncIterator[Sequence[Reading | RemoteProtocolError]]


def notification() -> bytes:
    scale = structure(Data(Type.INTEGER, 0), Data(Type.ENUM, 30))
    rows = [(ENERGY, 42), (EXPORT, 7)]
    items = [structure(octets(obis.to_bytes()), Data(Type.DOUBLE_LONG_UNSIGNED, n), scale) for obis, n in rows]
    return DataNotification(1, None, Data(Type.ARRAY, tuple(items))).to_bytes()


def now() -> datetime:
    return BEGIN + timedelta(seconds=trio.current_time())


def pushed(framing: PushFraming) -> Callable[[trio.abc.Stream], Batches]:
    return lambda stream: pushes(stream, PushReceiver("m"), silence_timeout_s=2000, framing=framing, now=now)


def read_out(stream: trio.abc.Stream) -> Batches:
    return listen(stream, clock=lambda: now().timestamp())


HDLC = push_frames(notification(), Address(1), Address(16), 40)
MBUS = push_mbus_frames(notification(), size_max=40)
WRAPPED = wrap(1, 16, notification())
LINES = [
    pytest.param(pushed("hdlc"), HDLC, id="hdlc"),
    pytest.param(pushed("mbus"), MBUS, id="mbus"),
    pytest.param(pushed("wrapper"), WRAPPED, id="wrapper"),
    pytest.param(read_out, TELEGRAM, id="text"),
]


async def test_a_radio_module_at_9600_bits_keeps_the_half_second(autojump_clock: MockClock) -> None:
    """REQ.WMBUS.apl.40: the stamp is the last octet's, and the longest datagram takes a quarter of a second."""
    ours, theirs = memory_stream_pair()
    body = b"\x44" + DeviceAddress.from_text("8STK0100000001", 7).to_link() + b"\x78\x04\x13\x07\0\0\0"
    datagram = bytes([255]) + body + b"\x2f" * (255 - len(body))

    async def send() -> None:
        await trio.sleep_until(100)
        for byte in amber_frame(datagram):
            await theirs.send_all(bytes((byte,)))
            await trio.sleep(10 / 9600)
        await theirs.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        (batch,) = [batch async for batch in wireless_listen(ours, Module("amber"), Receiver(), now=now)]
    (reading,) = batch
    assert isinstance(reading, Reading)
    assert reading.received_at is not None
    assert 0 <= (reading.received_at - BEGIN).total_seconds() - 100 <= 0.5


async def heard(listening: Callable[[trio.abc.Stream], Batches], *pieces: tuple[float, bytes]) -> list[list[Reading]]:
    """The readings of each batch; pieces are sent at their time, byte by byte, a hundredth of a second each."""
    ours, theirs = memory_stream_pair()

    async def send() -> None:
        for at_s, piece in pieces:
            await trio.sleep_until(at_s)
            for byte in piece:
                await theirs.send_all(bytes((byte,)))
                await trio.sleep(0.01)
        await theirs.send_eof()

    out = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        async for batch in listening(ours):
            readings = [item for item in batch if isinstance(item, Reading)]
            if readings:
                out.append(readings)
    return out


@pytest.mark.parametrize(("listening", "message"), LINES)
async def test_a_message_is_one_batch_received_with_its_first_byte(
    autojump_clock: MockClock, listening: Callable[[trio.abc.Stream], Batches], message: bytes
) -> None:
    """One register at a time would count as a readout in which the other registers are missing, and so are 0."""
    batches = await heard(listening, (100, message), (200, message))
    for at_s, batch in zip((100, 200), batches, strict=True):
        assert {reading.obis: reading.value for reading in batch if reading.obis in (ENERGY, EXPORT)} == {
            ENERGY: 42,
            EXPORT: 7,
        }
        (received_at,) = {reading.received_at for reading in batch}
        assert received_at is not None
        assert 0 <= (received_at - BEGIN).total_seconds() - at_s <= 0.05


@pytest.mark.parametrize(("listening", "message"), LINES[:2] + LINES[3:])
@pytest.mark.parametrize("kept", [2, 20, -5, -1])
async def test_what_broke_off_a_quarter_hour_ago_does_not_make_a_message_older(
    autojump_clock: MockClock, listening: Callable[[trio.abc.Stream], Batches], message: bytes, kept: int
) -> None:
    batches = await heard(listening, (100, message[:kept]), (1000, message), (1900, message))
    stamps = [reading.received_at for batch in batches for reading in batch if reading.obis == ENERGY]
    seconds = [(stamp - BEGIN).total_seconds() for stamp in stamps if stamp is not None]
    assert [round(second) for second in seconds[-2:]] == [1000, 1900]
