"""The SML driver against simulated meters, over real TCP sockets on loopback."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from loadtest.meters.sml import Register, ReplayMeter, SmlMeter
from loadtest.meters.sml_server import serve
from node.lmn.sml.bodies import GetCosemRequest, GetProfilePackRequest, SetCosemRequest
from node.lmn.sml.client import (
    CLASS_DATA,
    DEVICE_ID,
    FIRMWARE,
    LOAD_PROFILE,
    MAGNETIC_TAMPER,
    SmlClient,
    attentions,
    device_info,
    object_path,
)
from node.lmn.sml.driver import SmlLink, read_meter
from node.lmn.sml.values import TIMESTAMP, Time
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis

NOW = datetime(2026, 11, 21, 9, 0, 7, tzinfo=UTC)
IMPORT, EXPORT, POWER = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 2, 8, 0, 255), Obis(1, 0, 16, 7, 0, 255)
CORPUS = Path(__file__).parents[2] / "../shared/corpora/sml"


def registers_of(number: int) -> Callable[[datetime], list[Register]]:
    def registers(now: datetime) -> list[Register]:
        seconds = int((now - datetime(2026, 1, 1, tzinfo=UTC)).total_seconds())
        return [(IMPORT, 10_000 * number + seconds, -1, 30), (EXPORT, number, 0, 30), (POWER, -250 * number, -1, 27)]

    return registers


def meter(number: int, **settings: Any) -> SmlMeter:
    return SmlMeter(f"1STK00{number:08d}", registers_of(number), **settings)


Connect = Callable[[Sequence[SmlMeter | ReplayMeter]], Awaitable[trio.SocketStream]]


@pytest.fixture
async def connect(nursery: trio.Nursery) -> AsyncIterator[Connect]:
    async with AsyncExitStack() as streams:

        async def to(meters: Sequence[SmlMeter | ReplayMeter]) -> trio.SocketStream:
            port = await nursery.start(partial(serve, meters, lambda: NOW))
            return await streams.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))

        yield to


def client(device: int | None = None) -> SmlClient:
    server = None if device is None else meter(device).server_id
    return SmlClient(b"gateway", server_id=server)


async def test_asks_one_meter_for_its_list(connect: Connect) -> None:
    stream = await connect([meter(1)])
    found = await read_meter(stream, client(), lambda: NOW, timeout_s=5)
    assert [(r.obis, r.value, r.scaler, r.unit) for r in found[1:]] == registers_of(1)(NOW)
    assert {r.device for r in found} == {"1STK0000000001"}
    assert found[0].value == meter(1).server_id
    assert found[1].received_at == NOW


async def test_a_thousand_meters_share_one_port_by_server_id(connect: Connect) -> None:
    stream = await connect([meter(number) for number in range(1000)])
    link = SmlLink(stream, lambda: NOW)
    for number in (0, 7, 999):
        found = await link.ask_readings(client(number).get_list(), 5)
        assert [(r.obis, r.value, r.scaler, r.unit) for r in found[1:]] == registers_of(number)(NOW)
        assert {r.device for r in found} == {f"1STK00{number:08d}"}


async def test_listens_to_pushes_and_still_gets_its_answer(connect: Connect) -> None:
    stream = await connect([meter(1, push_interval_s=0.001)])
    link = SmlLink(stream, lambda: NOW)
    seen = 0
    async for found in link.pushed(5):
        assert [r.value for r in found[1:]] == [value for _, value, _, _ in registers_of(1)(NOW)]
        seen += 1
        if seen == 5:
            break
    found = await link.ask_readings(client(1).request_meter_data([POWER]), 5)
    assert [(r.obis, r.value, r.scaler, r.unit, r.status) for r in found] == [(POWER, -250, -1, 27, 0)]


async def test_chapter_9_use_cases(connect: Connect) -> None:
    version = b"1.2.3"
    stream = await connect([meter(3, information={FIRMWARE[0]: version})])
    link, asker = SmlLink(stream, lambda: NOW), client()

    listed = await link.ask_readings(asker.get_list(), 5)
    objects = await link.ask_readings(asker.discover_objects(listed), 5)
    assert [(r.obis, r.value, r.scaler, r.unit) for r in objects] == registers_of(3)(NOW)

    wanted = GetCosemRequest(b"gw", meter(3).server_id, None, None, IMPORT.to_bytes(), 32770, 0, (2, 3))
    cosem = await link.ask_readings(asker.exchange([wanted]), 5)
    assert [(r.obis, r.value, r.scaler, r.unit) for r in cosem] == registers_of(3)(NOW)[:1]

    answer, _ = await link.ask(asker.read_device_info(), 5)
    assert device_info(answer) == {DEVICE_ID: meter(3).server_id, FIRMWARE[0]: version}
    assert len(attentions(answer)) == 31

    begin = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
    times = (Time(TIMESTAMP, int(begin.timestamp())), Time(TIMESTAMP, int(NOW.timestamp())))
    rows = GetProfilePackRequest(
        meter(3).server_id, None, None, False, *times, (LOAD_PROFILE.to_bytes(),), (IMPORT.to_bytes(),)
    )
    history = await link.ask_readings(asker.exchange([rows]), 5)
    quarters = [begin + timedelta(minutes=15 * i) for i in range(5)]
    assert [(r.measured_at, r.value) for r in history] == [(q, registers_of(3)(q)[0][1]) for q in quarters]

    answer, _ = await link.ask(asker.reset_tamper_state(magnetic=True, mechanical=True), 5)
    assert {a.attention_no.hex() for a in attentions(answer)} == {"8181c7c7fd00"}


async def test_keys_and_certificates_do_not_go_in_clear(connect: Connect) -> None:
    device = meter(3)
    link, asker = SmlLink(await connect([device]), lambda: NOW), client()
    for exchange in (asker.update_meter_key(b"\x30\x82" + bytes(900)), asker.update_gateway_certificate(b"\x30\x82")):
        with pytest.raises(LocalProtocolError, match="TLS only"):
            await link.ask(exchange, 5)
        assert "3082" not in repr(exchange)
        assert "x82" not in repr(exchange)
    assert device.parameters == {}


async def test_what_was_set_can_be_read_back(connect: Connect) -> None:
    device = meter(4)
    stream = await connect([device])
    link, asker = SmlLink(stream, lambda: NOW), client()
    await link.ask(asker.reset_tamper_state(magnetic=True, mechanical=False), 5)
    assert device.parameters[object_path(CLASS_DATA, MAGNETIC_TAMPER, 2)].value is True
    assert len(device.parameters) == 1


async def test_a_refusal_is_an_error_with_the_meters_reason(connect: Connect) -> None:
    stream = await connect([meter(1)])
    link, asker = SmlLink(stream, lambda: NOW), client()
    with pytest.raises(RemoteProtocolError, match="8181c7c7fe0e"):
        await link.ask_readings(asker.request_meter_data([Obis(1, 0, 99, 99, 0, 255)]), 5)
    with pytest.raises(RemoteProtocolError, match="8181c7c7fe0d"):
        await link.ask_readings(
            asker.exchange([SetCosemRequest(b"g", None, None, None, IMPORT.to_bytes(), 3, 0, ())]), 5
        )


async def test_a_meter_that_is_not_on_the_bus_is_silent(connect: Connect, autojump_clock: MockClock) -> None:
    stream = await connect([meter(1)])
    with pytest.raises(RemoteProtocolError, match="meter_silent"):
        await read_meter(stream, client(2), lambda: NOW, timeout_s=30)
    assert 30 <= trio.current_time() < 31


async def test_broken_frames_cost_themselves_only(connect: Connect) -> None:
    good, bad = meter(1).push(NOW), bytearray(meter(1).push(NOW))
    bad[60] ^= 1
    frames = [bytes(bad), good[:70], good, b"\x1b\x1b" + good]
    sent = iter(range(10**6))
    stream = await connect([ReplayMeter(frames, lambda _: next(sent) % 4, 0.001)])
    errors = []
    link = SmlLink(stream, lambda: NOW, on_error=lambda error: errors.append(error.reason))
    got = []
    async for found in link.pushed(5):
        got.append([r.value for r in found[1:]])
        if len(got) == 4:
            break
    assert got == [[value for _, value, _, _ in registers_of(1)(NOW)]] * 4
    assert {"transport_crc", "frame_restarted", "noise"} <= set(errors)


async def test_a_closed_connection_is_the_remote_kind_of_error() -> None:
    async with trio.open_nursery() as servers:
        port = await servers.start(partial(serve, [meter(1)], lambda: NOW))
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            link = SmlLink(stream, lambda: NOW)
            await link.ask_readings(client(1).get_list(), 5)
            servers.cancel_scope.cancel()
            with trio.CancelScope(shield=True), pytest.raises(RemoteProtocolError, match="connection_closed"):
                await link.next_pushed(5)


@pytest.mark.beside_repository
async def test_recorded_meters_replayed_byte_for_byte(connect: Connect) -> None:
    rows = [json.loads(line) for line in (CORPUS / "frames.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["end"] == "end"]
    sent = iter(range(10**6))
    frames = [bytes.fromhex(row["hex"]) for row in rows]
    stream = await connect([ReplayMeter(frames, lambda _: next(sent) % len(frames), 0.0)])
    got = 0
    async for found in SmlLink(stream, lambda: NOW).pushed(5):
        assert [str(r.obis) for r in found] == [entry["obis"] for entry in rows[got]["expected"]["obis"]]
        got += 1
        if got == len(rows):
            break


async def test_many_gateways_read_one_meter_each(nursery: trio.Nursery) -> None:
    count = 100
    port = await nursery.start(partial(serve, [meter(number) for number in range(count)], lambda: NOW))
    done = []

    async def gateway(number: int) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            found = await read_meter(stream, client(number), lambda: NOW, timeout_s=20)
            assert [r.value for r in found[1:]] == [value for _, value, _, _ in registers_of(number)(NOW)]
            done.append(number)

    async with trio.open_nursery() as gateways:
        for number in range(count):
            gateways.start_soon(gateway, number)
    assert sorted(done) == list(range(count))


async def test_a_server_ignores_what_is_no_request(connect: Connect) -> None:
    stream = await connect([meter(1)])
    await stream.send_all(b"garbage" * 50 + meter(1).push(NOW))
    assert len(await read_meter(stream, client(), lambda: NOW, timeout_s=5)) == 4
