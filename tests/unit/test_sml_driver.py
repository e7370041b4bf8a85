"""The SML link's clocks and deadlines, on in-memory streams and trio's mock clock."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair

from loadtest.meters.sml import SmlMeter
from node.lmn.sml.bodies import GetListResponse, Message
from node.lmn.sml.client import SmlClient
from node.lmn.sml.driver import SmlLink, read_meter
from node.lmn.sml.messages import decode_file, encode_file
from node.lmn.sml.transport import Frame, TransportReader, wrap
from node.lmn.sml.values import LOCAL_TIMESTAMP, ListEntry, Time
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis

BEGIN = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
METER = SmlMeter("1STK0000000001", lambda _: [(Obis(1, 0, 1, 8, 0, 255), 42, -1, 30)])
FRAME = METER.push(BEGIN)


def now() -> datetime:
    return BEGIN + timedelta(seconds=trio.current_time())


async def test_reception_is_the_first_byte_of_the_frame(autojump_clock: MockClock) -> None:
    gateway, meter = memory_stream_pair()
    link = SmlLink(gateway, now)
    stamps, sent = [], 0

    async def slow() -> None:
        nonlocal sent
        for size, pause_s in ((30, 1), (50, 1), (len(FRAME), 0)):
            await meter.send_all((FRAME * 2)[sent : sent + size])
            sent += size
            await trio.sleep(pause_s)
        await meter.send_all((FRAME * 2)[sent:])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow)
        for _ in range(2):
            found = await link.next_pushed(10)
            stamps.append({reading.received_at for reading in found})
    assert stamps == [{BEGIN}, {BEGIN + timedelta(seconds=2)}]


@pytest.mark.parametrize("before", [FRAME[:-1] + b"\x00", FRAME[:40], FRAME[4:], FRAME[:12] + FRAME[:12]])
async def test_what_came_before_a_frame_does_not_make_it_older(autojump_clock: MockClock, before: bytes) -> None:
    """A damaged frame leaves bytes in the reader; a quarter hour later they are not the beginning of the next one."""
    gateway, meter = memory_stream_pair()
    link = SmlLink(gateway, now)
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await meter.send_all(before)
            await trio.sleep(900)
            for byte in FRAME:
                await meter.send_all(bytes((byte,)))
                await trio.sleep(0.001)

        nursery.start_soon(send)
        found = await link.next_pushed(1000)
    (received_at,) = {reading.received_at for reading in found}
    assert received_at is not None
    # Behind noise a start is known as one by its eighth byte.
    assert timedelta() <= received_at - BEGIN - timedelta(seconds=900) <= timedelta(milliseconds=10)


async def test_a_meter_that_does_not_read_is_silent(autojump_clock: MockClock) -> None:
    gateway, _meter = lockstep_stream_pair()
    with pytest.raises(RemoteProtocolError, match="meter_silent"):
        await read_meter(gateway, SmlClient(b"g"), now, timeout_s=5)
    assert trio.current_time() == pytest.approx(5)


async def test_a_meter_that_only_babbles_is_silent(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    gateway, meter = memory_stream_pair()

    async def babble() -> None:
        while True:
            await meter.send_all(FRAME + b"\x1b\x1b\x1b\x1b\x01\x01\x01\x01" + bytes(100))
            await trio.sleep(0.5)

    nursery.start_soon(babble)
    errors: list[RemoteProtocolError] = []
    link = SmlLink(gateway, now, on_error=errors.append, frame_size_max=1000)
    with pytest.raises(RemoteProtocolError, match="meter_silent"):
        await link.ask(SmlClient(b"g").get_list(), 20)
    assert trio.current_time() == pytest.approx(20)
    assert {error.reason for error in errors} == {"frame_restarted"}


async def test_a_flood_of_broken_frames_is_not_kept_until_silence(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """A start every eight bytes is a fault every eight bytes: whoever collects them needs a bound."""
    gateway, meter = memory_stream_pair()

    async def flood() -> None:
        for _ in range(200):
            await meter.send_all(b"\x1b\x1b\x1b\x1b\x01\x01\x01\x01" * 500)
            await trio.sleep(0.001)
        await meter.send_all(FRAME)

    nursery.start_soon(flood)
    errors: list[RemoteProtocolError] = []
    link = SmlLink(gateway, now, on_error=errors.append)
    with pytest.raises(RemoteProtocolError, match="only_faults"):
        await link.ask(SmlClient(b"g").get_list(), 20)
    assert len(errors) < 1000
    for _ in range(100):
        errors.clear()
        with pytest.raises(RemoteProtocolError, match="only_faults"):
            await link.next_pushed(900)
        assert len(errors) < 1000
    while True:
        with suppress(RemoteProtocolError):
            assert await link.next_pushed(900)  # and the good frame behind them is not lost
            break


async def test_the_answer_to_another_request_is_not_ours(autojump_clock: MockClock) -> None:
    gateway, meter = memory_stream_pair()
    client = SmlClient(b"g")
    first, second = client.get_list(), client.get_list()
    (request,) = TransportReader().feed(first.frame)
    assert isinstance(request, Frame)
    answer = METER.respond(decode_file(request.payload), BEGIN)
    assert answer is not None
    await meter.send_all(answer)
    link = SmlLink(gateway, now)
    with pytest.raises(RemoteProtocolError, match="meter_silent"):
        await link.ask(second, 3)


async def test_a_broken_stream_is_the_remote_kind_of_error() -> None:
    gateway, meter = memory_stream_pair()
    await meter.send_all(FRAME[:100])
    await meter.aclose()
    errors: list[RemoteProtocolError] = []
    link = SmlLink(gateway, now, on_error=errors.append)
    with pytest.raises(RemoteProtocolError, match="connection_closed"):
        await link.next_pushed(5)
    assert [error.reason for error in errors] == ["truncated"]
    await gateway.aclose()
    with pytest.raises(RemoteProtocolError, match="connection_lost"):
        await link.ask(SmlClient(b"g").get_list(), 5)


async def test_a_good_frame_with_a_bad_file_costs_itself_only() -> None:
    gateway, meter = memory_stream_pair()
    (frame,) = TransportReader().feed(FRAME)
    assert isinstance(frame, Frame)
    wrong_sum = bytearray(frame.payload)
    wrong_sum[-3] ^= 1
    entry = ListEntry(b"123456", None, Time(LOCAL_TIMESTAMP, 1, 1440), 30, 0, None)
    wrong_time = encode_file([Message(b"1", GetListResponse(None, b"meter", None, None, (entry,)))])
    await meter.send_all(wrap(bytes(wrong_sum)) + wrap(wrong_time) + FRAME)
    errors: list[RemoteProtocolError] = []
    link = SmlLink(gateway, now, on_error=errors.append)
    found = await link.next_pushed(5)
    assert [reading.value for reading in found] == [METER.server_id, 42]
    assert [error.reason for error in errors] == ["message_crc", "sml_time"]


async def test_a_stream_closed_on_our_side() -> None:
    gateway, _meter = memory_stream_pair()
    await gateway.aclose()
    with pytest.raises(RemoteProtocolError, match="connection_lost"):
        await SmlLink(gateway, now).next_pushed(5)
