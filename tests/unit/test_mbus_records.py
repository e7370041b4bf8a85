"""Records: data types, VIFs, OBIS codes, profiles, status; examples from the standards, from real meters, and edges."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from node.lmn.mbus.application import Context, readings_of
from node.lmn.mbus.device import DeviceAddress, manufacturer_code, manufacturer_letters
from node.lmn.mbus.profiles import Spacing, spacing_of
from node.lmn.mbus.records import Record, encode_record, parse_records
from node.lmn.mbus.values import bcd, decode_value, real32, variable_size
from node.lmn.mbus.vif import EXTENSION_FB, EXTENSION_FD, PRIMARY, Kind, value_information
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def read(text: str, medium: int = 2, status: int = 0) -> list[Reading]:
    return readings_of(parse_records(bytes.fromhex(text)), Context("1ISK0012345678", medium, status, AT))


def one(text: str, medium: int = 2) -> Reading:
    (reading,) = read(text, medium)
    return reading


@pytest.mark.parametrize(
    ("text", "value", "scaler", "unit"),
    [
        ("0103ff", -1, 0, 30),
        ("020300ff", -256, 0, 30),
        ("0303000080", None, 0, 30),  # 80..00 is "invalid" for every signed integer
        ("0403ffffff7f", 0x7FFFFFFF, 0, 30),
        ("060300000000ff7f", 0x7FFF << 32, 0, 30),
        ("07030100000000000000", 1, 0, 30),
        ("090399", 99, 0, 30),
        ("0a03f1f1", None, 0, 30),
        ("0a0311f1", -111, 0, 30),
        ("0c0312ab5678", None, 0, 30),
        ("0e03123456789012", 129078563412, 0, 30),
        ("05030000c03f", 15, -1, 30),
        ("0503cdcccc3d", 1, -1, 30),  # 0.1 as float32 is 0.1 again, not 0.10000000149
        ("05030000807f", None, 0, 30),
        ("0003", None, 0, 30),
        ("041312345678", 0x78563412, -3, 13),
        ("04930a01000000", 1, -3, 13),  # VIFE 0A is no modifier: see the unknown ones
    ],
)
def test_data_types(text: str, value: int | None, scaler: int, unit: int) -> None:
    reading = one(text)
    assert (reading.value, reading.scaler, reading.unit) == (value, scaler, unit)


def test_no_digit_is_lost() -> None:
    """13 digits before the point and 6 behind it, as the requirement has it."""
    digits = 1234567890123456789
    reading = one("0710" + digits.to_bytes(8, "little").hex(), 7)
    assert str(reading.decimal()) == "1234567890123.456789"
    assert reading.to_json()["value"] == str(digits)


def test_an_invalid_number_keeps_its_octets_and_is_marked() -> None:
    reading = one("0c0312ab5678")
    assert reading.quality is Quality.METER_ERROR
    assert reading.record["raw"] == "12ab5678"


def test_a_real_value_is_exact_and_not_for_billing() -> None:
    reading = one("0503e6dc0249")
    assert reading.decimal() == Decimal("536014.4")
    assert reading.quality is Quality.NOT_FOR_BILLING


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        ("00000000", "0"),
        ("0000803f", "1"),
        ("ffff7f7f", "340282350000000000000000000000000000000"),
        ("01000000", "1.4013E-45"),
    ],
)
def test_the_shortest_decimal_of_a_float(octets: str, text: str) -> None:
    decoded = real32(bytes.fromhex(octets))
    assert isinstance(decoded.value, int)
    assert Decimal(decoded.value).scaleb(decoded.scaler) == Decimal(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("046d0b0bcd13", "2014-03-13T11:11:00"),
        ("046d8b0bcd13", None),  # invalid bit
        ("046d3f1fff1f", None),
        ("426c9f2c", "2020-12-31"),
        ("426cffff", None),
        ("426c0000", None),
        ("066d1e3b17c1150b", "2014-05-01T23:59:30"),
        ("036d1e3b17", "23:59:30"),
        ("036dffffff", None),
    ],
)
def test_dates(text: str, value: str | None) -> None:
    reading = one(text)
    assert reading.value == value
    assert ("raw" in reading.record) is (value is None)


def test_type_f_knows_the_century() -> None:
    assert decode_value(4, Kind.DATETIME, bytes.fromhex("00200101")).value == "2000-01-01T00:00:00"
    assert decode_value(4, Kind.DATETIME, bytes.fromhex("000001c1")).value == "1996-01-01T00:00:00"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0dfd0a03434241", "ABC"),
        ("0d03c21234", 3412),
        ("0d03d21234", -3412),
        ("0d78e3010203", bytes.fromhex("010203")),
        ("0dff5f021234", bytes.fromhex("1234")),  # a manufacturer's text is nobody's text
    ],
)
def test_variable_length(text: str, value: object) -> None:
    assert one(text).value == value


def test_every_lvar_code_has_a_size_or_is_reserved() -> None:
    sizes = [variable_size(code) for code in range(256)]
    assert sizes[:0xC0] == list(range(0xC0))
    assert sizes[0xF0:0xF7] == [16, 20, 24, 28, 32, 48, 64]
    assert sizes[0xF7:] == [None] * 9


def test_storage_tariff_subunit_and_function() -> None:
    reading = one("da023b1301")
    assert {**reading.record, "quantity": ""} == {
        "function": "maximum",
        "storage": 5,
        "tariff": 0,
        "subunit": 0,
        "quantity": "",
    }
    reading = one("8b6004371802")
    assert (reading.record["tariff"], reading.record["subunit"], reading.value) == (2, 1, 21837)
    header = next(
        iter(parse_records(encode_record(b"\x03", b"\x01", 1, storage=1 << 40, tariff=1 << 19, subunit=1 << 9)))
    )
    assert isinstance(header, Record)
    assert (header.header.data.storage, header.header.data.tariff, header.header.data.subunit) == (
        1 << 40,
        1 << 19,
        1 << 9,
    )


def test_several_vifes() -> None:
    reading = one("04a9fc813c2a000000", 2)
    assert reading.record["modifiers"] == ["L1", "backward"]
    assert str(reading.obis) == "1-0:22.7.0*255"
    assert one("0493f43c01000000", 7).record["modifiers"] == ["backward"]


def test_corrections_of_the_power_of_ten() -> None:
    assert one("04937001000000", 7).scaler == -9
    assert one("04937d01000000", 7).scaler == 0


def test_plain_text_unit() -> None:
    reading = one("047c04736c61701e000000")
    assert (reading.value, reading.unit, reading.record["unit"]) == (30, None, "pals")
    assert reading.obis is None


def test_per_unit_changes_the_unit() -> None:
    reading = one("0493222a000000", 7)
    assert (reading.unit, reading.record["unit"], reading.obis) == (None, "m³ per h", None)


def test_a_record_error_is_no_value() -> None:
    reading = one("04831500000000")
    assert (reading.record["error"], reading.quality, reading.obis) == ("no data available", Quality.METER_ERROR, None)


@pytest.mark.parametrize("vib", ["6f", "ef01", "fd7c", "fb06", "7f", "ff8301", "930a"])
def test_unknown_vifs_are_kept(vib: str) -> None:
    reading = one(f"01{vib}05")
    assert reading.value == 5
    assert reading.record["vib"] == vib
    assert reading.obis is None


def test_the_tables_cover_what_the_standard_has() -> None:
    assert set(range(0x7B)) - set(PRIMARY) == {0x6F}
    assert len(EXTENSION_FD) == 119
    assert len(EXTENSION_FB) == 82
    assert value_information(b"\xfb\x00").unit == 30
    assert value_information(b"\xfd\x47").scaler == -2


def test_the_second_level_of_the_extension_and_what_later_editions_added() -> None:
    assert (one("01fdfd0218").record["quantity"], one("01fdfd0218").unit) == ("remaining battery life", 2)
    assert one("01fdfd0405").record["quantity"] == "unknown"
    assert one("02fb680010").record == {
        "function": "instantaneous", "storage": 0, "tariff": 0, "subunit": 0, "quantity": "rating factor K",
        "unit": "2^-12",
    }  # fmt: skip
    ended = one("0284fc13a22a")
    assert (ended.value, ended.unit, ended.record["modifiers"]) == ("2021-10-02", None, ["end of"])


@pytest.mark.parametrize(
    ("vib", "modifier"),
    [
        ("fc14", "to meter"), ("fc15", "from meter"), ("fc0e", "secondary sensor"), ("fc0f", "higher resolution"),
        ("fc18", "outdoors"), ("44", "times flow temperature / 100"), ("45", "times return temperature / 100"),
    ],
)  # fmt: skip
def test_a_modifier_that_makes_another_quantity_is_named_and_has_no_code(vib: str, modifier: str) -> None:
    reading = one(f"0493{vib}01000000", 7)
    assert (reading.record["modifiers"], reading.obis) == ([modifier], None)
    assert "vib" not in reading.record


@pytest.mark.parametrize(
    ("text", "value", "unit", "modifier"),
    [
        ("02ab410500", 5, 255, "number of exceeds of lower limit"),
        ("02ab49ffff", 65535, 255, "number of exceeds of upper limit"),
        ("0493142a000000", 42, None, "relative deviation"),
        ("04933d2a000000", 42, None, "non-metric"),
        ("0493fc0d2a000000", 42, None, "alternate non-metric"),
    ],
)
def test_a_modifier_without_unit_leaves_neither_unit_nor_scaler(
    text: str, value: int, unit: int | None, modifier: str
) -> None:
    reading = one(text, 7)
    assert (reading.value, reading.scaler, reading.unit, reading.obis) == (value, 0, unit, None)
    assert reading.record["modifiers"] == [modifier]
    assert "unit" not in reading.record


@pytest.mark.parametrize("form", ["fc11", "fc12"])
def test_what_is_presented_as_type_c_or_d_has_no_sign(form: str) -> None:
    assert one(f"0483{form}feffffff").value == 0xFFFFFFFE
    invalid_as_type_b = one(f"0483{form}00000080")
    assert (invalid_as_type_b.value, invalid_as_type_b.quality) == (1 << 31, Quality.VALID)


def test_what_names_something_has_no_sign_in_bcd_either() -> None:
    reading = one("0c78785634f2")
    assert (reading.value, reading.quality, reading.record["raw"]) == (None, Quality.METER_ERROR, "785634f2")


def test_a_reserved_modifier_is_not_overlooked() -> None:
    for code in ("10", "11"):
        reading = one(f"0483{code}01000000")
        assert (reading.obis, reading.record["vib"]) == (None, f"83{code}")


@pytest.mark.parametrize(
    ("medium", "text", "code"),
    [
        (2, "0403", "1-0:1.8.0*255"), (2, "04833c", "1-0:2.8.0*255"), (2, "841003", "1-0:1.8.1*255"),
        (2, "04fb8275", "1-0:3.8.0*255"), (2, "042b", "1-0:1.7.0*255"), (2, "142b", "1-0:1.6.0*255"),
        (2, "04fdc8fc01", "1-0:32.7.0*255"), (2, "04fdd9fc03", "1-0:71.7.0*255"), (2, "04fb2d", "1-0:14.7.0*255"),
        (3, "0413", "7-0:3.0.0*255"), (3, "04933e", "7-0:3.2.0*255"),
        (4, "0406", "6-0:1.0.0*255"), (4, "4406", "6-0:1.2.0*255"), (4, "0413", "6-0:2.0.0*255"),
        (4, "042b", "6-0:8.0.0*255"), (4, "143b", "6-0:9.5.0*255"), (4, "045a", "6-0:10.0.0*255"),
        (4, "045e", "6-0:11.0.0*255"), (12, "0460", "6-0:12.0.0*255"), (10, "0406", "5-0:1.0.0*255"),
        (7, "0413", "8-0:1.0.0*255"), (0x16, "4413", "8-0:1.2.0*255"), (6, "043b", "9-0:2.0.0*255"),
        (8, "046e", "4-0:1.0.0*255"), (2, "0478", "0-0:96.1.0*255"), (2, "04fd17", "0-0:97.97.0*255"),
        # and what has none:
        (2, "4403", None), (2, "844003", None), (7, "840113", None), (7, "0403", None), (0, "0403", None),
        (3, "04933c", None), (4, "049322", None), (2, "0483ff01", None), (7, "0413" .replace("04", "34"), None),
    ],
)  # fmt: skip
def test_obis_codes_by_medium(medium: int, text: str, code: str | None) -> None:
    obis = one(text + "01000000", medium).obis
    assert (None if obis is None else str(obis)) == code


def test_manufacturer_data_stay_raw_in_wire_order() -> None:
    energy, raw = read("0403010000000f010203")
    assert energy.value == 1
    assert (raw.value, raw.obis, raw.quality) == (b"\x01\x02\x03", None, Quality.NOT_FOR_BILLING)


@pytest.mark.parametrize(
    "text",
    [
        "04",
        "0403",
        "040301",
        "84",
        "04fd",
        "047c05414243",
        "0d03",
        "0d03f7",
        "3f",
        "6f",
        "84" * 12 + "03",
        "04" + "83" * 13,
    ],
)
def test_broken_records_give_no_reading_at_all(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        read("040301000000" + text)


def test_the_actuality_duration_moves_the_moment_of_measurement() -> None:
    energy, stored, _ = read("04030100000044030100000002742c01")
    assert energy.measured_at == datetime(2026, 3, 1, 11, 55, tzinfo=UTC)
    assert stored.measured_at is None
    assert energy.received_at == AT


def test_the_meters_clock_goes_with_the_values_of_its_storage() -> None:
    now, due, *_ = read("040301000000440301000000046d0b0bcd13426c9f2c")
    assert now.record["meter_time"] == "2014-03-13T11:11:00"
    assert due.record["meter_time"] == "2020-12-31"


def test_status_of_a_meter_in_the_numbering_of_the_specification() -> None:
    (reading,) = read("040301000000", status=0x04)
    assert reading.status == 1 << (31 - 29)  # bit 29: power low
    (reading,) = read("040301000000", status=0x08)
    assert (reading.status, reading.quality) == (1 << (31 - 28), Quality.METER_ERROR)
    readings = read("04030100000003fd971d800103")
    assert readings[0].status == 0x80010300
    assert read("04030100000003fd17800103")[0].status == 0  # the manufacturer's own flags are not the standard's
    assert read("0403010000000dfd971de3800103")[0].status == 0x80010300  # the length byte is no flag


def test_inverse_compact_profile() -> None:
    """Base 1000 Wh at 10:00, three differences of a quarter hour, back in time; the last one is marked invalid."""
    base_time, base, *values = read("84066d002a6111840603e80300008d0683130852 0f 0500 0600 ffff".replace(" ", ""))
    assert base_time.value == "2011-01-01T10:00:00"
    assert base.value == 1000
    assert [r.value for r in values] == [995, 989, None]
    assert [r.record["meter_time"] for r in values] == [
        "2011-01-01T09:45:00",
        "2011-01-01T09:30:00",
        "2011-01-01T09:15:00",
    ]
    assert all(r.unit == 30 and r.obis is None for r in values)


def test_compact_profile_forward_with_bcd() -> None:
    """The example of the standard's annex F: 12300.0 m³, then 0.3, 0.2 and 1.1 more, hour by hour."""
    values = read("84046d002041118b04150030128d04951f05690103 0211".replace(" ", ""), 7)[2:]
    assert [str(r.decimal()) for r in values] == ["12300.3", "12300.5", "12301.6"]
    assert values[-1].record["meter_time"] == "2010-01-01T03:00:00"


def test_spacings() -> None:
    assert spacing_of(0x30, 254) == Spacing(months=1)
    assert spacing_of(0x10, 15) == Spacing(seconds=900)
    assert spacing_of(0x00, 251) is None
    assert Spacing(months=1).shift(datetime(2024, 3, 31), -1) == datetime(2024, 2, 29)


@pytest.mark.parametrize("profile", ["8d0683130152", "8d0683130352fb05", "8d06831303550fff", "8d06831304520f0102"[:-2]])
def test_a_broken_profile_is_refused(profile: str) -> None:
    with pytest.raises(RemoteProtocolError):
        read(profile)


def test_device_numbers() -> None:
    assert manufacturer_letters(manufacturer_code("ISK")) == "ISK"
    device = DeviceAddress.from_transport(bytes.fromhex("785634129315 3307".replace(" ", "")))
    assert str(device) == "8ELS3312345678"
    assert DeviceAddress.from_text("8ELS3312345678", 7) == device
    assert DeviceAddress.from_link(device.to_link()) == device
    with pytest.raises(ValueError, match="14 characters"):
        DeviceAddress.from_text("8ELS", 7)
    with pytest.raises(ValueError, match="three capital letters"):
        manufacturer_code("els")


def test_bcd_signs() -> None:
    assert bcd(bytes.fromhex("34f2")) == -234
    assert bcd(bytes.fromhex("ffff")) is None


def test_obis_is_the_houses() -> None:
    assert one("040301000000").obis == Obis(1, 0, 1, 8, 0, 255)
