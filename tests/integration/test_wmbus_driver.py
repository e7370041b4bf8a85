"""The wireless driver against simulated meters behind a receiver on TCP, in every framing and security mode."""

from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from loadtest.meters.serial_bus import serial_bus
from loadtest.meters.wmbus import WirelessMeter, serve, serve_stream
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.keys import KeyStore
from node.lmn.serial_link import open_serial
from node.lmn.wmbus.driver import listen
from node.lmn.wmbus.exchange import DataRequest
from node.lmn.wmbus.framing import imst_frame
from node.lmn.wmbus.modules import Module
from node.lmn.wmbus.receiver import Receiver
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading

VOLUME = Obis(8, 0, 1, 0, 0, 255)
CLOCK = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
KEY = bytes(range(16))
GATEWAY = DeviceAddress.from_text("EPPC0100000001", 0x31)


def device(number: int) -> DeviceAddress:
    return DeviceAddress.from_text(f"8ISK01{number:08d}", 7)


def meter(number: int, **how: Any) -> WirelessMeter:
    return WirelessMeter(device(number), lambda _: [(VOLUME, number, -3, 13)], lambda: CLOCK, key=KEY, **how)


@pytest.mark.parametrize("framing", ["imst", "amber", "rtl-wmbus"])
async def test_meters_of_all_modes_are_heard(framing: Any) -> None:
    meters = [meter(10 + mode, mode=mode, compact=True, full_every=2) for mode in (0, 5, 7, 10)]
    stranger = WirelessMeter(device(99), lambda _: [(VOLUME, 99, -3, 13)], lambda: CLOCK, key=bytes(16), mode=7)
    keys = KeyStore({str(device(10 + mode)): KEY for mode in (5, 7, 10)})
    heard: dict[str, set[object]] = {}
    faults = set()
    async with trio.open_nursery() as nursery:
        port = await nursery.start(partial(serve, [*meters, stranger], framing, interval_s=0.01))
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with aclosing(listen(stream, Module(framing), Receiver(keys), now=lambda: CLOCK)) as batches:
            async for batch in batches:
                for item in batch:
                    if isinstance(item, RemoteProtocolError):
                        faults.add(item.reason)
                    elif item.obis == VOLUME:
                        heard.setdefault(item.device, set()).add(item.value)
                        assert item.received_at == CLOCK
                if len(heard) == 4 and faults:
                    break
        await stream.aclose()
        nursery.cancel_scope.cancel()
    assert heard == {str(device(10 + mode)): {10 + mode} for mode in (0, 5, 7, 10)}
    assert faults == {"no_key"}


@pytest.mark.parametrize("framing", ["imst", "amber"])
async def test_a_bidirectional_meter_is_asked_over_a_serial_transceiver(framing: Any) -> None:
    requests = [DataRequest(GATEWAY, device(1))]
    answered = 0
    async with serial_bus(2) as (here, there), trio.open_nursery() as nursery:
        source = meter(1, mode=7, bidirectional=True)
        nursery.start_soon(partial(serve_stream, open_serial(there, 57600), [source], framing, 0.05))
        stream = open_serial(here, 57600)
        async with aclosing(
            listen(stream, Module(framing), Receiver(KeyStore(default=KEY)), requests=requests)
        ) as batches:
            async for batch in batches:
                answered += sum(getattr(item, "obis", None) == VOLUME for item in batch)
                if not requests:
                    break
        await stream.aclose()
        nursery.cancel_scope.cancel()
    assert answered >= 2


async def test_fragments_of_known_radio_modules_alone_are_put_together() -> None:
    """Only the first fragment names the meter: the second has the module's address alone."""

    def fragments(radio: DeviceAddress, of: DeviceAddress, value: int) -> list[bytes]:
        tpdu = bytes([0x72]) + of.to_transport() + bytes([1, 0, 0, 0]) + bytes.fromhex(f"0413{value:02x}000000")
        out = []
        for number, more, part in ((1, 0x40, tpdu[:14]), (2, 0, tpdu[14:])):
            body = b"\x44" + radio.to_link() + bytes([0x90, 2, number, more]) + part
            out.append(imst_frame(bytes([len(body)]) + body))
        return out

    module, other = (DeviceAddress.from_text(f"FRAD010000000{n}", 0x37) for n in (1, 2))
    ours, theirs = memory_stream_pair()
    stream = fragments(other, device(9), 9) + fragments(module, device(1), 5)
    await theirs.send_all(b"".join(stream))
    await theirs.send_eof()
    is_ours = lambda address: address == device(1)  # noqa: E731
    batches = [batch async for batch in listen(ours, Module("imst"), Receiver(), is_ours=is_ours)]
    assert [[isinstance(item, Reading) and (item.device, item.value) for item in batch] for batch in batches] == [
        [], [], [], [(str(device(1)), 5)],
    ]  # fmt: skip


def test_a_receiver_cannot_send() -> None:
    with pytest.raises(LocalProtocolError):
        Module("rtl-wmbus").transmission(b"\x00")
