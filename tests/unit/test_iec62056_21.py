"""IEC 62056-21: framing, numbers, addresses, and the client machine."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from node.lmn.iec62056_21.checks import block_check, crc16_arc, with_even_parity
from node.lmn.iec62056_21.client import Done, Mode, ReadoutClient, Send, SetBaudrate, mode_of
from node.lmn.iec62056_21.datasets import DataSet, data_sets, parse_address
from node.lmn.iec62056_21.decode import decode_stream as shown_stream
from node.lmn.iec62056_21.framing import ETX, STX, Readout, ReadoutReader
from node.lmn.iec62056_21.quantities import Quantity, decimal_text, quantity, unit_of
from node.lmn.iec62056_21.readings import Interpretation, decode_stream, device_id
from node.lmn.iec62056_21.times import parse_clock, parse_stamp
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading

BODY = b"F.F(00000000)\r\n0.0.0(00012345)\r\n1.8.1(000123.45*kWh)\r\n1.8.1*03(000100.00*kWh)\r\n!\r\n"


def block(body: bytes = BODY) -> bytes:
    data = body + ETX
    return STX + data + bytes([block_check(data)])


def answer(body: bytes = BODY) -> bytes:
    return b"/ABC5METER\r\n" + block(body)


def split(data: bytes, **how: object) -> tuple[list[Reading], list[RemoteProtocolError]]:
    out = list(decode_stream([data], Interpretation(**how) if how else None))  # type: ignore[arg-type]
    return (
        [item for item in out if isinstance(item, Reading)],
        [item for item in out if isinstance(item, RemoteProtocolError)],
    )


def test_crc_and_block_check_values() -> None:
    assert crc16_arc(b"123456789") == 0xBB3D  # the catalogue's check value of CRC-16/ARC
    assert block_check(b"\x01\x02\x03") == 0x00
    assert with_even_parity(b"/") == b"\xaf"


@pytest.mark.parametrize(
    ("number", "unit", "expected"),
    [
        ("000004.426", "kWh", Quantity(4426, 0, 30, None)),
        ("001.19", "kW", Quantity(119, 1, 27, None)),
        ("-00.5", "kvar", Quantity(-5, 2, 29, None)),
        ("+00026", "W", Quantity(26, 0, 27, None)),
        ("00000.107", "m3", Quantity(107, -3, 13, None)),
        ("3", "dm3", Quantity(3, -3, 13, None)),
        ("12.5", "MWh", Quantity(125, 5, 30, None)),
        ("1761.087", "kVArh", Quantity(1761087, 0, 32, None)),
        ("230.1", "V", Quantity(2301, -1, 35, None)),
        ("7", "imp", Quantity(7, 0, None, "imp")),
        ("0000.6", None, Quantity(6, -1, None, None)),
        ("12,5", "kWh", None),
        ("1e3", "kWh", None),
        ("9" * 25, "kWh", None),
        ("", "kWh", None),
    ],
)
def test_numbers_are_exact(number: str, unit: str | None, expected: Quantity | None) -> None:
    assert quantity(number, unit) == expected


def test_milli_is_not_mega() -> None:
    assert unit_of("mW") == (27, -3)
    assert unit_of("MW") == (27, 6)
    assert unit_of("min") == (6, 0)
    assert unit_of("C") is None  # coulomb to DLMS, Celsius to heat meters: not guessed


@pytest.mark.parametrize(("value", "scaler"), [(0, 0), (12345, -3), (-7, -1), (5, 2), (-12345, -8)])
def test_decimal_text_is_read_back(value: int, scaler: int) -> None:
    read = quantity(decimal_text(value, scaler), None)
    assert read is not None
    assert Reading("", None, read.value, read.scaler).decimal() == Reading("", None, value, scaler).decimal()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1-0:1.8.0*255", Obis(1, 0, 1, 8, 0, 255)),
        ("1.8.1", Obis(1, 0, 1, 8, 1, 255)),
        ("1.8.1*03", Obis(1, 0, 1, 8, 1, 3)),
        ("1.8", Obis(1, 0, 1, 8, 0, 255)),
        ("F.F", Obis(1, 0, 97, 97, 0, 255)),
        ("C.1.0", Obis(1, 0, 96, 1, 0, 255)),
        ("1-1:32.7.0.255", Obis(1, 1, 32, 7, 0, 255)),
        ("1-0:1.8.0*256", None),
        ("garbage", None),
    ],
)
def test_addresses(text: str, expected: Obis | None) -> None:
    assert parse_address(text) == (expected, False)


def test_address_without_medium_takes_the_meter_s() -> None:
    assert parse_address("6.8", medium=6)[0] == Obis(6, 0, 6, 8, 0, 255)


def test_ampersand_marks_a_manual_reset() -> None:
    assert parse_address("1.6.1&12") == (Obis(1, 0, 1, 6, 1, 12), True)
    readings, _ = split(answer(b"1.6.1&12(0.123*kW)(0210011230)\r\n!\r\n"))
    assert readings[0].record == {"stamp": "0210011230", "reset": "manual"}
    assert (readings[0].value, readings[0].scaler, readings[0].unit) == (123, 0, 27)


def test_several_sets_on_a_line_and_continuation() -> None:
    sets = [s for s in data_sets("6.8(0004.902*GJ)6.26(01234.56*m3)\r\n(1)(2)\r\n") if isinstance(s, DataSet)]
    assert [(s.address, len(s.values)) for s in sets] == [("6.8", 1), ("6.26", 3)]


def test_block_with_check_is_valid_and_historic_values_have_no_present_time() -> None:
    readings, errors = split(answer())
    assert not errors
    by_obis = {str(r.obis): r for r in readings}
    assert {r.device for r in readings} == {"00012345"}
    assert by_obis["1-0:1.8.1*255"].decimal() * 1000 == 123450000
    assert by_obis["1-0:1.8.1*3"].quality is Quality.VALID


def test_error_register_marks_every_reading() -> None:
    readings, _ = split(answer(BODY.replace(b"F.F(00000000)", b"F.F(00000010)")))
    assert {r.quality for r in readings} == {Quality.METER_ERROR}


def test_each_damaged_bit_of_a_checked_block_gives_no_reading() -> None:
    whole = answer()
    start = whole.index(STX) + 1
    for bit in range(7):
        damaged = bytearray(whole)
        damaged[start + 40] ^= 1 << bit
        readings, errors = split(bytes(damaged))
        assert not readings
        assert errors


def test_parity_bits_are_recognised_and_checked() -> None:
    line = with_even_parity(answer())
    assert split(line)[0] == split(answer())[0]
    damaged = bytearray(line)
    damaged[50] ^= 0x80
    readings, errors = split(bytes(damaged))
    assert not readings
    assert errors[0].reason == "bad_parity"


def test_a_lost_end_costs_only_its_own_telegram() -> None:
    cut = answer()[:-20]
    readings, errors = split(cut + b"\r\n" + answer())
    assert len(readings) == 4
    assert [e.reason for e in errors] == ["truncated"]


@pytest.mark.parametrize("parity", [False, True])
@pytest.mark.parametrize("checked", [False, True])
def test_an_end_lost_within_a_line_costs_only_its_own_telegram_too(checked: bool, parity: bool) -> None:
    if checked:
        block = b"1.8.0(000042*kWh)\r\n!\r\n\x03"
        good = b"/ABC5METER\r\n\x02" + block + bytes([block_check(block)])
    else:
        good = b"/ABC5METER\r\n\r\n1.8.0(000042*kWh)\r\n!\r\n"
    for size in range(1, len(good) - 1):
        stream = good[:size] + good + good
        for pieces in ([stream], [stream[at : at + 1] for at in range(len(stream))]):
            lined = [with_even_parity(piece) for piece in pieces] if parity else pieces
            readings = [item for item in decode_stream(lined) if isinstance(item, Reading)]
            assert [reading.value for reading in readings] == [42, 42], (size, len(pieces))


def test_own_requests_on_the_line_are_no_noise() -> None:
    conversation = b"/?!\r\n/ABC5METER\r\n\x06050\r\n" + block()
    readings, errors = split(conversation)
    assert len(readings) == 4
    assert not errors


def test_noise_is_said_once_with_its_offset() -> None:
    _, errors = split(answer() + b"rubbish" + answer())
    assert [(e.reason, e.offset) for e in errors] == [("noise", len(answer()))]


def test_a_malformed_line_costs_itself_under_a_check_and_else_the_block() -> None:
    body = b"1.8.1(1*kWh)\r\n1.8.2(2*kWh\r\n1.8.3(3*kWh)\r\n!\r\n"
    readings, errors = split(answer(body))
    assert len(readings) == 2
    assert [e.reason for e in errors] == ["malformed_line"]
    readings, errors = split(b"/ABC5METER\r\n\r\n" + body)
    assert not readings
    assert [e.reason for e in errors] == ["malformed_line"]


def test_the_reader_s_memory_is_bounded() -> None:
    reader = ReadoutReader(size_max=1000)
    reader.receive(b"/ABC5METER\r\n\r\n")
    out = [e for _ in range(100) for e in reader.receive(b"1.8.1(1*kWh)\r\n" * 10)]
    assert [e.reason for e in out if isinstance(e, RemoteProtocolError)] == ["too_long"]
    assert len(reader._buffer) <= 1000


def test_profile_rows_get_their_own_times() -> None:
    body = b"P.01(260101120000)(00)(15)(2)(1.5)(kW)(2.5)(kW)\r\n(0.100)(0.000)\r\n(0.200)(0.001)\r\n!\r\n"
    readings, _ = split(answer(body), zone=ZoneInfo("Europe/Berlin"))
    start = datetime(2026, 1, 1, 11, 0, tzinfo=UTC)
    assert [(str(r.obis), r.value, r.scaler, r.measured_at) for r in readings] == [
        ("1-0:1.5.0*255", 100, 0, start),
        ("1-0:2.5.0*255", 0, 0, start),
        ("1-0:1.5.0*255", 200, 0, start + timedelta(minutes=15)),
        ("1-0:2.5.0*255", 1, 0, start + timedelta(minutes=15)),
    ]
    readings, _ = split(answer(body))
    assert {r.measured_at for r in readings} == {None}
    assert readings[0].record["stamp"] == "260101120000"


@pytest.mark.parametrize("first", ["260329013000", "261025013000"])
def test_rows_of_a_profile_keep_their_period_over_summer_time_changes(first: str) -> None:
    body = f"P.01({first})(00)(30)(1)(1.5)(kW)\r\n(0.1)\r\n(0.2)\r\n(0.3)\r\n(0.4)\r\n!\r\n".encode()
    readings, _ = split(answer(body), zone=ZoneInfo("Europe/Berlin"))
    moments = [reading.measured_at.astimezone(UTC) for reading in readings if reading.measured_at is not None]
    assert [moment - moments[0] for moment in moments] == [timedelta(minutes=30 * row) for row in range(4)]


def test_a_peak_is_of_the_time_behind_it() -> None:
    body = b"0.9.1(120000)\r\n0.9.2(260301)\r\n1.6.1(01.250*kW)(2602141815)\r\n1.6.1*02(01.5*kW)(260115181500)\r\n!\r\n"
    berlin = ZoneInfo("Europe/Berlin")
    readings, errors = split(answer(body), zone=berlin)
    assert not errors
    assert [(str(r.obis), r.decimal(), r.measured_at) for r in readings[2:]] == [
        ("1-0:1.6.1*255", Decimal(1250), datetime(2026, 2, 14, 18, 15, tzinfo=berlin)),
        ("1-0:1.6.1*2", Decimal(1500), datetime(2026, 1, 15, 18, 15, tzinfo=berlin)),
    ]
    unfixed, _ = split(answer(body))
    assert [(r.measured_at, r.record["stamp"]) for r in unfixed[2:]] == [(None, "2602141815"), (None, "260115181500")]


def test_the_belgian_history_of_peaks() -> None:
    """Fluvius e-MUCS P1 1.7: 0-0:98.1.0, for each month the time at which it was closed, that of the peak, and it."""
    body = (
        b"/FLU5\\253769484_A\r\n\r\n0-0:96.1.1(3153414733313031303231363035)\r\n0-0:1.0.0(200512135409S)\r\n"
        b"1-0:1.6.0(200509134558S)(02.589*kW)\r\n"
        b"0-0:98.1.0(2)(1-0:1.6.0)(1-0:1.6.0)(200501000000S)(200423192538S)(03.695*kW)"
        b"(200401000000S)(200305122139W)(05.980*kW)\r\n0-2:24.1.0(007)\r\n0-2:96.1.1(3853414731323334353637)\r\n"
        b"0-2:24.2.1(200512134558S)(00872.234*m3)\r\n!"
    )
    readings, errors = split(body + f"{crc16_arc(body):04X}\r\n".encode())
    assert not errors
    peak, *history = [r for r in readings if r.obis == Obis(1, 0, 1, 6, 0, 255)]
    assert peak.measured_at == datetime(2020, 5, 9, 11, 45, 58, tzinfo=UTC)
    assert [(r.decimal(), r.measured_at, r.record["closed"], r.record["period"]) for r in history] == [
        (Decimal(3695), datetime(2020, 4, 23, 17, 25, 38, tzinfo=UTC), "200501000000S", 1),
        (Decimal(5980), datetime(2020, 3, 5, 11, 21, 39, tzinfo=UTC), "200401000000S", 2),
    ]
    assert readings[-1].device == "8SAG1234567"


@pytest.mark.parametrize(
    "values", ["(2)(1-0:1.6.0)", "(2)(1-0:1.6.0)(1-0:1.6.0)(200501000000S)", "(200501000000S)(1*kWh)(2*kWh)"]
)
def test_another_98_1_0_is_kept_as_it_is(values: str) -> None:
    """Hungarian meters put the registers of the last month there, without codes."""
    (reading,), errors = split(answer(f"0-0:98.1.0{values}\r\n!\r\n".encode()))
    assert not errors
    assert "".join(f"({each})" for each in reading.record["values"]) == values


def test_stamps() -> None:
    assert parse_stamp("170102192002W") == datetime(2017, 1, 2, 18, 20, 2, tzinfo=UTC)
    assert parse_stamp("200426223325S") == datetime(2020, 4, 26, 20, 33, 25, tzinfo=UTC)
    assert parse_stamp("700101010000W") == datetime(1970, 1, 1, tzinfo=UTC)
    assert parse_stamp("632525252525S") is None
    assert parse_stamp("170102192002") == datetime(2017, 1, 2, 19, 20, 2)  # of an unknown zone
    for text in ("20260304 14:20", "2026-03-04 14:20:00", "2026-03-04T14:20"):
        assert parse_stamp(text, zone=ZoneInfo("Europe/Berlin")) == datetime(2026, 3, 4, 13, 20, tzinfo=UTC)
    for text in ("2026-02-30 14:20:00", "2026-0304 14:20", "20260304 25:00", "2026-03-04"):
        assert parse_stamp(text) is None
    assert parse_clock("1-26-01-02", "0:12:34:56", zone=UTC) == datetime(2026, 1, 2, 12, 34, 56, tzinfo=UTC)
    assert parse_clock("", "123456", zone=UTC) is None


def test_an_hour_that_is_ambiguous_or_missing_is_no_time_without_season() -> None:
    zone = ZoneInfo("Europe/Berlin")
    for text in ("261025023000", "260329023000"):
        assert parse_stamp(text, zone=zone) is None
        assert parse_clock(text[:6], text[6:], zone=zone) is None
    assert parse_stamp("261025023000S") == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert parse_stamp("261025023000W") == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert parse_stamp("261025030000", zone=zone) == datetime(2026, 10, 25, 2, tzinfo=UTC)


def test_device_ids() -> None:
    assert device_id("4B384547303034303436333935353037") == "K8EG004046395507"
    assert device_id("3960221976967177082151037881335713") == "3960221976967177082151037881335713"
    assert device_id("0272031312565") == "0272031312565"
    assert device_id("1ESY1313002565") == "1ESY1313002565"


def test_an_id_in_din_43849_form_goes_before_the_utility_s_number() -> None:
    readings, _ = split(answer(b"0.0.0(0001095100000067)\r\n96.1.255(1ESY1313002565)\r\n!\r\n"))
    assert {r.device for r in readings} == {"1ESY1313002565"}


def test_mode_of() -> None:
    assert mode_of("5") == (Mode.C, 9600)
    assert mode_of("F") == (Mode.B, 19200)
    assert mode_of("@") == (Mode.A, 300)


def test_client_mode_c_changes_speed_after_the_acknowledgement() -> None:
    client = ReadoutClient()
    assert client.start() == [SetBaudrate(300), Send(b"/?!\r\n")]
    assert client.receive(b"/ABC5METER\r") == []
    assert client.receive(b"\n") == [Send(b"\x06050\r\n", after_s=0.2), SetBaudrate(9600)]
    begun = [client.data_begun]
    assert client.receive(block()[:5]) == []
    assert [*begun, client.data_begun] == [False, True]
    (done,) = client.receive(block()[5:])
    assert isinstance(done, Done)
    assert done.readout.verified


def test_client_stays_slow_where_the_link_cannot_change() -> None:
    client = ReadoutClient(can_switch=False)
    client.start()
    assert client.receive(b"/ABC5METER\r\n") == [Send(b"\x06000\r\n", after_s=0.2), SetBaudrate(300)]


def test_client_mode_b_changes_unasked_and_mode_a_never() -> None:
    client = ReadoutClient()
    client.start()
    assert client.receive(b"/ABCEMETER\r\n") == [SetBaudrate(9600)]
    client = ReadoutClient()
    client.start()
    (done,) = client.receive(b"/ABC@METER\r\n" + block())
    assert isinstance(done, Done)


def test_client_asks_again_for_a_damaged_block() -> None:
    client = ReadoutClient()
    client.start()
    client.receive(b"/ABC5METER\r\n")
    damaged = bytearray(block())
    damaged[10] ^= 1
    assert client.receive(bytes(damaged)) == [Send(b"\x15", after_s=0.2)]
    (done,) = client.receive(block())
    assert isinstance(done, Done)
    assert isinstance(done.readout, Readout)
    assert done.readout.identification == "ABC5METER"


def test_client_gives_up_on_a_block_that_stays_damaged() -> None:
    client = ReadoutClient(attempts=2)
    client.start()
    client.receive(b"/ABC5METER\r\n")
    damaged = block()[:-1] + bytes([block()[-1] ^ 1])
    client.receive(damaged)
    with pytest.raises(RemoteProtocolError, match="bad_checksum"):
        client.receive(damaged)


def test_client_signs_on_again_and_then_says_silent() -> None:
    client = ReadoutClient(attempts=2)
    client.start()
    assert client.timeout() == [SetBaudrate(300), Send(b"/?!\r\n")]
    with pytest.raises(RemoteProtocolError, match="silent"):
        client.timeout()


def test_client_is_for_one_readout_and_for_sane_addresses() -> None:
    client = ReadoutClient("12345")
    assert client.start()[1] == Send(b"/?12345!\r\n")
    with pytest.raises(LocalProtocolError):
        client.start()
    with pytest.raises(LocalProtocolError):
        ReadoutClient("a!b")


def test_a_profile_of_an_unknown_zone_keeps_local_times_without_an_offset() -> None:
    text = b"/STK5X\r\n\r\n0-1:24.3.0(270703100000)(00)(15)(1)(0-1:24.2.1)(m3)(00001.001)(00001.002)\r\n!\r\n"
    found = [item for item in shown_stream([text]) if isinstance(item, Reading)]
    assert [item.measured_at for item in found] == [datetime(2027, 7, 3, 10, 0), datetime(2027, 7, 3, 10, 15)]
    assert [item.measured_at for item in decode_stream([text]) if isinstance(item, Reading)] == [None, None]
