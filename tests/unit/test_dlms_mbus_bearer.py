"""DLMS on wired M-Bus, as Austrian meters push it: a published telegram, segments, damage, and what is no DLMS."""

from datetime import UTC, datetime
from typing import Any

import pytest

from loadtest.meters.dlms import DlmsServer, ServerSettings, push_mbus_frames
from loadtest.meters.dlms_objects import CosemObjects
from node.lmn.dlms.decode import decode_stream
from node.lmn.dlms.mbus_bearer import Segments
from node.lmn.dlms.security import Keys
from node.lmn.mbus.link import LongFrame, encode_frame
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading
from protocol.metering.units import AMPERE, VAR_HOUR, VOLT, WATT, WATT_HOUR

# The worked example of github.com/fneur/smart-meter-tirol (doc/EXAMPLE.md): a Kaifa MA309M of TINETZ, key and all.
KAIFA = bytes.fromhex(
    "68fafa6853ff000167db084b464d10100000238201092100295b9aefc1546e644a2c9e32edd42cbd0f1b945b194d0868"
    "85c4d8df86dd52cb5b448854a6d548d5d270739b2a169d05b013f9015070089d3c5fa45ca05e92309a645cc83d7da40f"
    "bc8f4cf9c225afa69a25ff0b2ac9c2744550aba53ce9143fd10b0ad85fd30bd6b6dffee65f8204dc9c5067ca73b62e29"
    "9a39d50aa730b2b9ae3836bc2f3490fb41be5b6f930d84952976369dd7dabbb5a4354aeca1d2486cff2eb0c6206380ba"
    "501d122af75d716d3092c3960506a15e06fab0ee5b7dfa3c2cdf0cafd051b88e44b8b9fb8865f20cb89d1143cdc7efeb"
    "07fb4c4898e764e9e3a32ddc3d1f0f166826266853ff110167b46961ce962b2c78050c96598c7e4d26658043f9cbca78"
    "189bd01b139f8ae0f7391116"
)
KAIFA_KEY = bytes(range(0x10, 0x20))
KEYS, TITLE = Keys(bytes(range(16)), bytes(range(16, 32))), b"STK\x00\x00\x00\x00\x01"
NOON = datetime(2027, 1, 15, 12, tzinfo=UTC)


def meter(value: int = 4711) -> DlmsServer:
    registers = [(Obis(1, 0, c, 8, e, 255), value + c + e, 0, WATT_HOUR) for c in (1, 2) for e in range(10)]
    objects = CosemObjects("1STK0000000001", lambda _: registers, lambda: NOON)
    return DlmsServer(objects, ServerSettings(keys=KEYS, system_title=TITLE))


def read(stream: bytes, key: bytes = KEYS.encryption + KEYS.authentication) -> tuple[list[int], list[str], list[Any]]:
    whole = list(decode_stream([stream], key))
    assert [str(item) for item in whole] == [str(item) for item in decode_stream([bytes((b,)) for b in stream], key)]
    numbers = [item.value for item in whole if isinstance(item, Reading) and isinstance(item.value, int)]
    return numbers, [item.reason for item in whole if isinstance(item, RemoteProtocolError)], whole


def test_the_published_telegram_of_a_kaifa_ma309m() -> None:
    _, errors, items = read(KAIFA, KAIFA_KEY)
    assert errors == []
    assert {(str(r.obis), r.value, r.scaler, r.unit) for r in items if isinstance(r.value, int)} == {
        ("1-0:32.7.0*255", 2308, -1, VOLT), ("1-0:31.7.0*255", 0, -2, AMPERE), ("1-0:1.7.0*255", 0, 0, WATT),
        ("1-0:2.7.0*255", 0, 0, WATT), ("1-0:1.8.0*255", 9108, 0, WATT_HOUR), ("1-0:2.8.0*255", 0, 0, WATT_HOUR),
        ("1-0:3.8.0*255", 96, 0, VAR_HOUR), ("1-0:4.8.0*255", 9, 0, VAR_HOUR),
    }  # fmt: skip
    assert {(r.device, r.measured_at.isoformat(), r.quality) for r in items} == {
        ("1KFM0100000035", "2021-07-19T15:46:35+02:00", Quality.VALID)  # encrypted without a tag: as good as its frame
    }


@pytest.mark.parametrize("begun", [1, 60, 100, 255, 270])
def test_a_recording_begins_anywhere(begun: int) -> None:
    numbers, errors, _ = read(KAIFA[begun:] + KAIFA, KAIFA_KEY)
    assert numbers == [2308, 0, 0, 0, 9108, 0, 96, 9]
    assert set(errors) <= {"not_a_frame", "mbus_segment", "length_field", "stop_byte_missing"}


def test_one_segment_or_many() -> None:
    server = meter()
    sealed = server.notification(sealed=True)
    assert read(push_mbus_frames(sealed, size_max=60))[:2] == ([4711 + c + e for c in (1, 2) for e in range(10)], [])
    assert len(read(push_mbus_frames(server.notification()))[0]) == 20


def test_a_lost_doubled_or_damaged_segment_costs_its_message_only() -> None:
    server = meter()
    frames = [push_mbus_frames(server.notification(sealed=True)) for _ in range(3)]
    at = 6 + frames[1][1]
    first, rest = frames[1][:at], frames[1][at:]
    damaged = bytearray(frames[1])
    damaged[40] ^= 1
    for spoilt in (first, rest, first + first + rest, rest + first, bytes(damaged)):
        numbers, errors, _ = read(frames[0] + spoilt + frames[2])
        assert len(numbers) == 40 + 20 * (spoilt == first + first + rest)
        assert errors


def test_segments_of_two_conversations_are_not_put_together() -> None:
    server = meter()
    first, second = (push_mbus_frames(server.notification(sealed=True), 1, to) for to in (0x67, 0x66))
    numbers, errors, _ = read(first[: 6 + first[1]] + second[6 + second[1] :])
    assert numbers == []
    assert set(errors) == {"mbus_segment"}


def test_foreign_frames_are_skipped_and_segments_without_saps_reported() -> None:
    segments = Segments()
    assert segments.accept(LongFrame(0x08, 1, 0x72, b"meter")) == []
    (error,) = segments.accept(LongFrame(0x53, 0xFF, 0x10, b"\x01"))
    assert isinstance(error, RemoteProtocolError)
    server = meter()
    other = encode_frame(LongFrame(0x08, 1, 0x72, bytes(20)))
    assert len(read(push_mbus_frames(server.notification()) + other)[0]) == 20


def test_a_tag_that_cannot_be_checked_leaves_its_readings_unverified() -> None:
    sealed = meter().notification(sealed=True)
    for key, quality in ((KEYS.encryption, Quality.UNVERIFIED), (KEYS.encryption + KEYS.authentication, Quality.VALID)):
        items = read(push_mbus_frames(sealed), key)[2]
        assert {item.quality for item in items} == {quality}
