"""Wired telegrams that encrypt, and those that are no answers."""

from datetime import UTC, datetime
from typing import Any

import pytest

from loadtest.meters.wmbus import WirelessMeter
from node.lmn.mbus.decode import decode_stream
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.keys import KeyStore
from node.lmn.mbus.link import LongFrame, encode_frame
from node.lmn.mbus.telegram import decode_telegram
from node.lmn.wmbus.receiver import Receiver
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality

KEY = bytes(range(16))
DEVICE = DeviceAddress.from_text("8ISK0112345678", 7)
CLOCK = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def secured(mode: Any) -> LongFrame:
    """What a wireless meter sends behind its link layer, in a wired frame; a radio of its own makes the header long."""
    meter = WirelessMeter(
        DEVICE, lambda _: [(Obis(8, 0, 1, 0, 0, 255), 5, -3, 13)], lambda: CLOCK,
        key=KEY, mode=mode, radio=DeviceAddress.from_text("FRAD0287654321", 0x37),
    )  # fmt: skip
    layers = meter.datagram()[10:]
    return LongFrame(0x08, 1, layers[0], layers[1:])


@pytest.mark.parametrize("mode", [5, 7, 10])
def test_a_wired_meter_that_encrypts_is_read_with_its_key(mode: int) -> None:
    readings = decode_telegram(secured(mode), CLOCK, Receiver(KeyStore({str(DEVICE): KEY})))
    assert (readings[0].device, readings[0].value) == (str(DEVICE), 5)
    assert "link_device" not in readings[0].record
    assert len(list(decode_stream([encode_frame(secured(mode))], KEY))) == 2


@pytest.mark.parametrize("mode", [5, 7, 10])
def test_without_its_key_it_is_not(mode: int) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_telegram(secured(mode))
    (error,) = decode_stream([encode_frame(secured(mode))], bytes(16))
    assert isinstance(error, RemoteProtocolError)
    assert error.reason in ("wrong_key", "mac_mismatch")


def test_a_secured_telegram_without_an_address_belongs_to_nobody() -> None:
    frame = LongFrame(0x08, 1, 0x7A, bytes.fromhex("01001005") + bytes(16))
    with pytest.raises(RemoteProtocolError, match="no_address"):
        decode_telegram(frame, opener=Receiver(KeyStore(default=KEY)))


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (LongFrame(0x53, 1, 0x72, bytes(12)), "wrong_direction"),
        (LongFrame(0x08, 1, 0x71, b""), "alarm"),
        (LongFrame(0x08, 1, 0x70, b"\x08"), "application_error"),
        (LongFrame(0x08, 1, 0xC0, b""), "unknown_ci"),
        (LongFrame(0x08, 1, 0x7A, b""), "header_truncated"),
    ],
)
def test_what_is_no_data(frame: LongFrame, reason: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_telegram(frame)
    assert caught.value.reason == reason


def test_the_signature_of_old_meters_is_no_encryption() -> None:
    header = DEVICE.to_transport() + bytes.fromhex("010027b6")
    assert decode_telegram(LongFrame(0x08, 1, 0x72, header + bytes.fromhex("041305000000")))[0].value == 5


@pytest.mark.parametrize(
    ("status", "value", "quality", "storage"),
    [
        (0x00, 1, Quality.VALID, 0), (0x01, 0x01, Quality.VALID, 0), (0x02, 1, Quality.VALID, 1),
        (0x04, 1, Quality.VALID, 0), (0x08, 1, Quality.METER_ERROR, 0), (0x10, 1, Quality.VALID, 0),
        (0x81, 0x01, Quality.VALID, 0), (0x80, None, Quality.METER_ERROR, 0), (0x40, 1, Quality.VALID, 1),
    ],
)  # fmt: skip
def test_the_status_of_the_fixed_structure(status: int, value: int | None, quality: Quality, storage: int) -> None:
    """Two numberings of its bits are about; where they contradict each other on the coding there is no number."""
    data = bytes.fromhex("785634120A00E97E0100000035010000")
    first, second = decode_telegram(LongFrame(0x08, 5, 0x73, data[:5] + bytes([status]) + data[6:]), CLOCK)
    assert (first.value, first.quality, first.record["storage"]) == (value, quality, storage)
    assert first.status == status & 0xFC  # its two lowest bits are no application status, as in the word they would be
    assert second.value == (None if value is None else 0x135 if status & 0x01 else 135)
    assert second.record["storage"] == 1
