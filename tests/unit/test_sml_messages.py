"""SML's encoding and messages: the shapes that real meters send, and the refusal of those that are none."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from node.lmn.sml import crc
from node.lmn.sml.bodies import (
    CloseRequest,
    CosemAttribute,
    GetCosemResponse,
    GetListResponse,
    GetProcParameterResponse,
    GetProfileListResponse,
    GetProfilePackResponse,
    Message,
    OpenResponse,
    ProfileHeader,
    ProfilePeriod,
    SignedValue,
    UnknownBody,
)
from node.lmn.sml.codec import Number, Opaque
from node.lmn.sml.messages import decode_file, encode_file
from node.lmn.sml.readings import device_id, frame_readings, readings, server_id
from node.lmn.sml.values import (
    LOCAL_TIMESTAMP,
    SEC_INDEX,
    TIMESTAMP,
    ListEntry,
    PeriodEntry,
    Time,
    Tree,
    TupelEntry,
    signed,
    unsigned,
)
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.reading import Quality, Reading, is_past

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
EMH = bytes.fromhex("0a01454d4800005e0b3c")
ENERGY, POWER = bytes.fromhex("0100010800ff"), bytes.fromhex("0100100700ff")


def message(body: bytes, *, crc_of: Callable[[bytes], int] = crc.x25, tag: bytes = b"\x63\x07\x01") -> bytes:
    data = b"\x76\x02\x31\x62\x00\x62\x00\x72" + tag + body
    value = crc_of(data)
    short = b"\x62" + value.to_bytes(1, "big") if value < 256 else b"\x63" + value.to_bytes(2, "big")
    return data + short + b"\x00"


def get_list(
    entries: Sequence[bytes], *, count: int | None = None, server: bytes = EMH, sent: bytes = b"\x01"
) -> bytes:
    count = len(entries) if count is None else count
    head = bytes((0x70 + count,)) if count < 16 else bytes((0xF0 + (count >> 4), count & 0x0F))
    name = bytes((len(server) + 1,)) + server
    return b"\x77\x01" + name + b"\x01" + sent + head + b"".join(entries) + b"\x01\x01"


def entry(
    value: bytes,
    *,
    name: bytes = ENERGY,
    status: bytes = b"\x01",
    time: bytes = b"\x01",
    unit: bytes = b"\x62\x1e",
    scaler: bytes = b"\x52\xff",
) -> bytes:
    return b"\x77\x07" + name + status + time + unit + scaler + value + b"\x01"


def only(*entries: bytes, **settings: Any) -> list[Reading]:
    return frame_readings(message(get_list(entries, **settings)), NOW)


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        ("52ff", -1), ("53ff38", -200), ("54ff9e57", -25001), ("550001ac10", 109584), ("56ffffffffff", -1),
        ("57000000000001", 1), ("5800000000000002", 2), ("598000000000000000", -(2**63)),
        ("62ff", 255), ("6400ffff", 65535), ("69ffffffffffffffff", 2**64 - 1), ("d003ff", -1), ("01", None),
        ("d00a8000000000000001", 1 - 2**63), ("e00affffffffffffffff", 2**64 - 1),  # the length in two octets
    ],
)  # fmt: skip
def test_integers_of_every_size(encoded: str, value: int | None) -> None:
    assert [r.value for r in only(entry(bytes.fromhex(encoded)))] == [value]


@pytest.mark.parametrize("encoded", ["51", "61", "5a00000000000000000001", "6a00000000000000000001", "12 00", "80 01"])
def test_integers_of_no_size(encoded: str) -> None:
    with pytest.raises(RemoteProtocolError, match="sml_type"):
        only(entry(bytes.fromhex(encoded)))


def test_octets_lists_and_times_as_values() -> None:
    long = b"signature" * 5
    assert [r.value for r in only(entry(b"\x04EMH"), entry(b"\x82\x0f" + long))] == [b"EMH", long]
    (seconds,) = only(entry(bytes.fromhex("726201 726201 6500000123")))
    assert (seconds.value, seconds.record) == (0x123, {"type": "time"})
    (when,) = only(entry(bytes.fromhex("726201 726202 65671b6322")))
    assert when.value == "2024-10-25T09:21:38+00:00"
    (other,) = only(entry(bytes.fromhex("725205 02ff")))
    assert (other.value, other.record) == (bytes.fromhex("725205 02ff"), {"type": "list"})
    (truth,) = only(entry(b"\x42\x01"))
    assert (truth.value, truth.record) == (1, {"type": "boolean"})


def test_lists_longer_than_fifteen() -> None:
    found = only(*(entry(bytes((0x62, n))) for n in range(200)))
    assert [r.value for r in found] == list(range(200))


@pytest.mark.parametrize("unit", ["62 1e", "63 00 1e", "52 1e"])
@pytest.mark.parametrize(
    ("scaler", "expected"), [("52 ff", -1), ("62 ff", -1), ("53 ffff", -1), ("62 03", 3), ("01", 0)]
)
def test_scalers_and_units_of_the_wrong_type(unit: str, scaler: str, expected: int) -> None:
    (found,) = only(entry(b"\x62\x05", unit=bytes.fromhex(unit), scaler=bytes.fromhex(scaler)))
    assert (found.unit, found.scaler) == (30, expected)


def test_absent_fields_and_names_that_are_no_obis_code() -> None:
    (found,) = only(entry(b"\x01", unit=b"\x01", scaler=b"\x01"))
    assert (found.value, found.unit, found.scaler, found.status) == (None, None, 0, None)
    (odd,) = frame_readings(message(get_list([b"\x77\x03ab\x62\x07\x01\x01\x01\x62\x05\x04sig"])))
    assert (odd.obis, odd.status, odd.record) == (None, 7, {"name": "6162", "signature": "736967"})


def test_octets_of_length_0_are_absent_however_they_are_written() -> None:
    body = get_list([entry(b"\x80\x02")[:-1] + b"\x80\x02"]).replace(b"\x77\x01\x0b", b"\x77\x80\x02\x0b")
    (decoded,) = decode_file(message(body))
    assert isinstance(decoded.body, GetListResponse)
    assert decoded.body.client_id is decoded.body.val_list[0].value is decoded.body.val_list[0].value_signature is None
    assert decode_file(encode_file([decoded])) == [decoded]


def test_check_sums_shortened_or_by_kermit() -> None:
    bodies = [get_list([entry(bytes((0x63, n >> 8, n & 255)))]) for n in range(2000)]
    short = next(body for body in bodies if message(body)[-3] == 0x62 and message(body)[-4] != 0x63)
    assert len(frame_readings(message(short))) == 1
    assert len(frame_readings(message(bodies[0], crc_of=crc.kermit))) == 1


def test_any_wrong_check_sum_spoils_the_whole_file() -> None:
    good, bad = message(get_list([entry(b"\x62\x05")])), bytearray(message(get_list([entry(b"\x62\x06")])))
    bad[40] ^= 1
    with pytest.raises(RemoteProtocolError, match="message_crc") as caught:
        frame_readings(good + bytes(bad) + good)
    assert caught.value.offset == len(good)


@pytest.mark.parametrize("tag", ["63 0701", "64 000701", "65 00000701"])
def test_tags_in_two_to_four_bytes(tag: str) -> None:
    assert len(frame_readings(message(get_list([entry(b"\x62\x05")]), tag=bytes.fromhex(tag)))) == 1


def test_times_in_every_form() -> None:
    sent = bytes.fromhex("726201 65000003e8")  # 1000 s
    forms = {
        "01": (None, 1000),
        "726201 6200": (None, 1000),  # DZG: 0 is no time
        "726201 65000003de": (NOW - timedelta(seconds=10), 990),
        "65000003de": (NOW - timedelta(seconds=10), 990),  # Holley: no tag
        "726201 6507000000": (None, 0x07000000),  # after the message's: not to be trusted
        "726202 65671b6322": (datetime(2024, 10, 25, 9, 21, 38, tzinfo=UTC), None),
        "726203 7365671b6322 53003c 53003c": (datetime(2024, 10, 25, 9, 21, 38, tzinfo=UTC), None),
        "7365671b6322 53003c 53003c": (datetime(2024, 10, 25, 9, 21, 38, tzinfo=UTC), None),  # FROETEC: no tag
        "726201 7365671b6322 53003c 5200": (datetime(2024, 10, 25, 9, 21, 38, tzinfo=UTC), None),  # or another
    }
    for form, expected in forms.items():
        (found,) = only(entry(b"\x62\x05", time=bytes.fromhex(form)), sent=sent)
        assert (found.measured_at, found.meter_seconds) == expected, form
        assert found.received_at == NOW
    (local,) = only(entry(b"\x62\x05", time=bytes.fromhex("726203 7365671b6322 53003c 53003c")))
    assert local.measured_at is not None
    assert local.measured_at.utcoffset() == timedelta(hours=2)
    measured_at = only(entry(b"\x62\x05"), sent=bytes.fromhex("726202 65671b6322"))[0].measured_at
    assert measured_at is not None
    assert measured_at.year == 2024


@pytest.mark.parametrize("form", ["726204 6500000001", "7262 01", "42 01", "726203 7365671b6322 537fff 537fff"])
def test_times_that_are_none(form: str) -> None:
    with pytest.raises(RemoteProtocolError):
        only(entry(b"\x62\x05", time=bytes.fromhex(form)))


def dzg(serial: int, value: str, *, status: bytes = b"\x01", name: bytes = POWER) -> Any:
    server = bytes.fromhex("0a01445a4700") + serial.to_bytes(4, "big")
    return only(
        entry(b"\x62\x05", status=status), entry(bytes.fromhex(value), name=name, scaler=b"\x52\xfe"), server=server
    )[1].value


def test_the_power_of_dzg_meters() -> None:
    assert dzg(42_082_910, "538b28") == 35624  # DVS7412: unsigned in truth
    assert dzg(42_082_910, "52f0") == 240
    assert dzg(42_082_910, "54f00000") == 0xF00000
    assert dzg(42_082_910, "55fffe1393") == -126061  # its negatives have four bytes
    assert dzg(60_694_612, "538b28") == -29912  # the next generation is right
    assert dzg(60_694_612, "538b28", status=bytes.fromhex("65001c0104")) == 35624  # drawing: cannot be negative
    assert dzg(60_694_612, "538b28", status=bytes.fromhex("65001c0904")) == -29912  # feeding in
    assert dzg(42_082_910, "538b28", name=ENERGY) == -29912
    assert only(entry(b"\x53\x8b\x28", name=POWER), server=EMH)[0].value == -29912


@pytest.mark.parametrize(
    ("server", "device"),
    [
        ("0a01454d4800005e0b3c", "1EMH0006163260"),
        ("0901454d480000cacf7e", "1EMH0013291390"),
        ("0a07485a470500000001", "7HZG0500000001"),
        ("0a01454d4800ffffffff", "0a01454d4800ffffffff"),
        ("0a01654d4800005e0b3c", "0a01654d4800005e0b3c"),
        ("06454d4801027153c8c6", "06454d4801027153c8c6"),
        ("0102", "0102"),
        ("", ""),
    ],
)
def test_device_ids(server: str, device: str) -> None:
    assert device_id(bytes.fromhex(server)) == device
    if not server.startswith("09"):
        assert server_id(device) == bytes.fromhex(server)


def test_a_device_id_that_is_none() -> None:
    with pytest.raises(ValueError, match="hex"):
        server_id("meter")


TREE = Tree(
    ENERGY,
    None,
    (
        Tree(b"\x02", unsigned(123456)),
        Tree(b"\x03", None, (Tree(b"\x01", signed(-1)), Tree(b"\x02", unsigned(30)))),
        Tree(b"\x04", unsigned(8)),
        Tree(b"\x05", Time(TIMESTAMP, 1729848098)),
    ),
)


def the(found: Iterable[Reading]) -> tuple[Any, ...]:
    (reading,) = found
    return str(reading.obis), reading.value, reading.scaler, reading.unit, reading.status


def test_registers_by_get_proc_parameter_and_get_cosem() -> None:
    expected = ("1-0:1.8.0*255", 123456, -1, 30, 8)
    by_tree = GetProcParameterResponse(EMH, (ENERGY,), TREE)
    attributes = tuple(CosemAttribute(child.name[0], child) for child in TREE.children or ())
    by_cosem = GetCosemResponse(None, EMH, ENERGY, 32770, 0, attributes)
    for body in (by_tree, by_cosem):
        file = encode_file([Message(b"1", body)])
        assert decode_file(file) == [Message(b"1", body)]
        assert the(frame_readings(file, NOW)) == expected
        assert frame_readings(file, NOW)[0].measured_at == datetime(2024, 10, 25, 9, 21, 38, tzinfo=UTC)


def test_registers_below_a_tree_of_parameters() -> None:
    tupel = TupelEntry(
        EMH, Time(SEC_INDEX, 7), 3,
        30, -1, 11, 32, 0, 51, 32, 0, 81, b"s1",
        30, -1, 21, 32, 0, 61, 32, 0, 71, b"s2",
    )  # fmt: skip
    entries = (
        Tree(b"a", PeriodEntry(ENERGY, 30, -1, unsigned(5))),
        Tree(b"b", ListEntry(POWER, 4, None, 27, 0, signed(-6))),
        Tree(b"c", tupel),
        Tree(b"\x01\x00\x00\x02\x00\x00", b"1.2.3"),
        Tree(b"d", Opaque(bytes.fromhex("7262090201"[:8]))),
    )
    body = GetProcParameterResponse(EMH, (b"x",), Tree(b"root", None, entries[:4]))
    file = encode_file([Message(b"1", OpenResponse(None, None, b"1", EMH, Time(SEC_INDEX, 9))), Message(b"2", body)])
    found = frame_readings(file, NOW)
    assert [(str(r.obis), r.value, r.unit) for r in found] == [
        ("1-0:1.8.0*255", 5, 30), ("1-0:16.7.0*255", -6, 27),
        ("1-0:1.8.0*255", 11, 30), ("1-0:5.8.0*255", 51, 32), ("1-0:8.8.0*255", 81, 32),
        ("1-0:2.8.0*255", 21, 30), ("1-0:6.8.0*255", 61, 32), ("1-0:7.8.0*255", 71, 32),
        ("1-0:0.2.0*0", b"1.2.3", None),
    ]  # fmt: skip
    assert found[2].measured_at == NOW - timedelta(seconds=2)
    assert found[2].quality is Quality.VALID


def test_profiles_as_table_and_as_list() -> None:
    times = [Time(TIMESTAMP, 1729848098), Time(LOCAL_TIMESTAMP, 1729848998, 60, 60)]
    header = (ProfileHeader(ENERGY, 30, -1), ProfileHeader(POWER, 27, 0))
    rows = tuple(
        ProfilePeriod(time, 5, (SignedValue(unsigned(n)), SignedValue(signed(-n)))) for n, time in enumerate(times)
    )
    pack = GetProfilePackResponse(EMH, None, 900, (b"p",), header, rows)
    single = GetProfileListResponse(EMH, None, 900, (b"p",), times[1], 5, (PeriodEntry(ENERGY, 30, -1, unsigned(1)),))
    found = readings([Message(b"1", pack), Message(b"2", single)], NOW)
    assert [(r.obis and r.obis.c, r.value, r.status) for r in found] == [
        (1, 0, 5),
        (16, 0, 5),
        (1, 1, 5),
        (16, -1, 5),
        (1, 1, 5),
    ]
    assert found[2].measured_at is not None
    assert found[0].measured_at == found[2].measured_at - timedelta(minutes=15)
    assert found[4].measured_at == found[2].measured_at
    assert all(is_past(reading) for reading in found)  # or the account would take the last row for the register


def test_a_row_of_a_profile_that_does_not_fit_its_header_is_refused() -> None:
    header = (ProfileHeader(ENERGY, 30, -1), ProfileHeader(POWER, 27, 0))
    for count in (1, 3):
        row = ProfilePeriod(Time(SEC_INDEX, 5), 5, (SignedValue(unsigned(7)),) * count)
        with pytest.raises(RemoteProtocolError) as caught:
            readings([Message(b"1", GetProfilePackResponse(EMH, None, 900, (b"p",), header, (row,)))], NOW)
        assert caught.value.reason == "sml_count"


def test_unknown_bodies_are_kept_and_say_nothing() -> None:
    file = encode_file([Message(b"1", UnknownBody(0x4711, b"\x72\x62\x01\x03ab"))])
    assert decode_file(file) == [Message(b"1", UnknownBody(0x4711, b"\x72\x62\x01\x03ab"))]
    assert frame_readings(file) == []


def test_an_unknown_kind_of_parameter_is_kept() -> None:
    tree = Tree(b"x", Opaque(bytes.fromhex("72 62 09 02 41")))
    file = encode_file([Message(b"1", GetProcParameterResponse(EMH, (), tree))])
    assert decode_file(file)[0].body == GetProcParameterResponse(EMH, (), tree)


def test_what_cannot_be_encoded_is_our_fault() -> None:
    for body in (
        CloseRequest("text"),  # type: ignore[arg-type]
        OpenResponse(None, None, b"1", EMH, None, 256),
        GetListResponse(None, EMH, None, None, (ListEntry(ENERGY, 0, None, 30, 200, None),)),
        GetListResponse(None, EMH, None, None, (ListEntry(ENERGY, 0, None, 30, 0, Number(300, 1, signed=False)),)),
    ):
        with pytest.raises(LocalProtocolError):
            encode_file([Message(b"1", body)])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("76 02", "truncated"),
        ("75 0231", "sml_count"),
        ("05 31323334", "sml_type"),
        ("76 0231 6200 6200 72630701 70 00", "sml_count"),
        ("76 0231 6200 6200 72630201 7142 00", "sml_type"),
        ("76 8f8f8f8f8f8f00", "sml_length"),
        ("76 0231 630100 6200", "sml_range"),
    ],
)
def test_what_is_no_message(data: str, reason: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_file(bytes.fromhex(data))
    assert caught.value.reason == reason


def test_a_message_needs_its_end_mark() -> None:
    good = message(get_list([entry(b"\x62\x05")]))
    with pytest.raises(RemoteProtocolError, match="sml_end"):
        decode_file(good[:-1] + b"\x01")


def test_trees_and_lists_without_bottom() -> None:
    deep = b"\x73\x01\x01\x71" * 30000
    with pytest.raises(RemoteProtocolError, match="sml_depth"):
        frame_readings(message(b"\x73\x02a\x70" + deep, tag=b"\x63\x05\x01"))
    with pytest.raises(RemoteProtocolError, match="sml_depth"):
        only(entry(b"\x71" * 30000))
