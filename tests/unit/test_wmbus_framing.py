"""Receivers' byte streams, and asking a bidirectional meter, both without I/O."""

from datetime import UTC, datetime
from typing import Any

import pytest

from loadtest.meters.wmbus import WirelessMeter
from node.lmn.mbus.device import DeviceAddress
from node.lmn.wmbus.decode import decode_stream
from node.lmn.wmbus.exchange import DataRequest, State
from node.lmn.wmbus.framing import (
    AmberReader,
    Datagram,
    ImstReader,
    LineReader,
    RawReader,
    amber_frame,
    crc_x25,
    imst_frame,
    rtl_wmbus_line,
)
from node.lmn.wmbus.heard import HeardMeters
from node.lmn.wmbus.link import Format, seal
from node.lmn.wmbus.modules import Module
from node.lmn.wmbus.receiver import Receiver
from node.lmn.wmbus.signal import of_cc1101, of_imst
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading

DEVICE = DeviceAddress.from_text("8ISK0112345678", 7)
GATEWAY = DeviceAddress.from_text("EPPC0100000001", 0x31)
CLOCK = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def meter(**how: Any) -> WirelessMeter:
    return WirelessMeter(DEVICE, lambda _: [(Obis(8, 0, 1, 0, 0, 255), 5, -3, 13)], lambda: CLOCK, **how)


DATAGRAM = meter().datagram()
FRAMINGS = [
    (ImstReader, imst_frame(DATAGRAM)),
    (AmberReader, amber_frame(DATAGRAM)),
    (LineReader, rtl_wmbus_line(DATAGRAM)),
    (LineReader, DATAGRAM.hex().encode() + b"\r\n"),
    (LineReader, b"telegram=|" + DATAGRAM.hex().encode() + b"|+3\n"),
    (LineReader, b"b" + seal(DATAGRAM, Format.A).hex().encode() + b"\n"),
    (LineReader, b"b" + seal(DATAGRAM, Format.A).hex().upper().encode() + b"7BE1\r\n"),
    (LineReader, b"bY" + seal(DATAGRAM, Format.B).hex().upper().encode() + b"83FA\r\n"),
    (RawReader, DATAGRAM),
    (RawReader, seal(DATAGRAM, Format.A)),
    (RawReader, seal(DATAGRAM, Format.B)),
]


@pytest.mark.parametrize(("reader", "octets"), FRAMINGS)
def test_datagrams_come_out_whole_and_octet_by_octet(reader: type[Any], octets: bytes) -> None:
    whole, single = reader(), reader()
    stream = octets * 3
    expected = [DATAGRAM] * 3
    assert [event.octets for event in [*whole.feed(stream), *whole.finish()]] == expected
    events = [event for octet in stream for event in single.feed(bytes([octet]))] + list(single.finish())
    assert [event.octets for event in events] == expected


@pytest.mark.parametrize(("reader", "octets"), FRAMINGS[:2])
def test_a_damaged_frame_costs_itself_only(reader: type[Any], octets: bytes) -> None:
    for position in range(len(octets)):
        damaged = bytearray(octets)
        damaged[position] ^= 0x55
        stream = reader()
        events = [*stream.feed(octets + bytes(damaged) + octets * 4), *stream.finish()]
        datagrams = [event.octets for event in events if isinstance(event, Datagram)]
        assert set(datagrams) == {DATAGRAM}
        assert len(datagrams) >= 2
        assert any(isinstance(event, RemoteProtocolError) for event in events) or len(datagrams) == 5


def test_optional_fields_of_imst() -> None:
    payload = DATAGRAM[1:]
    body = bytes([0xE2, 0x03, len(payload)]) + payload + b"\1\2\3\4" + b"\x50"
    frame = b"\xa5" + body + crc_x25(body).to_bytes(2, "little")
    other = bytes([0x81, 0x10, 2, 9, 9])
    stream = b"\xa5" + other + crc_x25(other).to_bytes(2, "little") + frame
    assert [getattr(event, "octets", b"") for event in ImstReader().feed(stream)] == [DATAGRAM]


@pytest.mark.parametrize(
    ("line", "level", "unit"),
    [
        (b"b" + seal(DATAGRAM, Format.A).hex().encode() + b"2EF6", -79.0, "dBm"),
        (b"bY" + seal(DATAGRAM, Format.B).hex().encode() + b"2E0A", -69.0, "dBm"),
        (rtl_wmbus_line(DATAGRAM), 97.0, ""),
        (b'{"model":"Wireless-MBus","data":"%s","rssi":-3.5,"snr":20}' % DATAGRAM.hex().encode(), -3.5, "dB"),
    ],
)
def test_the_signal_strength_of_a_line_comes_with_its_datagram(line: bytes, level: float, unit: str) -> None:
    (event,) = LineReader().feed(line.strip() + b"\n")
    assert isinstance(event, Datagram)
    assert event.octets == DATAGRAM
    assert event.signal is not None
    assert (event.signal.level, event.signal.unit) == (level, unit)


@pytest.mark.parametrize("level", [b"Infinity", b"NaN", b"1e999"])
def test_a_signal_strength_that_is_no_number_costs_only_itself(level: bytes) -> None:
    line = b'{"model":"Wireless-MBus","data":"%s","rssi":%s}\n' % (DATAGRAM.hex().encode(), level)
    (event,) = LineReader().feed(line)
    assert isinstance(event, Datagram)
    assert (event.octets, event.signal) == (DATAGRAM, None)
    (event,) = LineReader().feed(rtl_wmbus_line(DATAGRAM).replace(b";97;", b";" + b"9" * 400 + b";"))
    assert isinstance(event, Datagram)
    assert event.signal is None


@pytest.mark.parametrize(("octet", "level"), [(45, -100.0), (135, -55.0), (205, -20.0), (255, -7.5), (0, -122.5)])
def test_the_signal_strength_of_imst_follows_the_curve_of_its_chip(octet: int, level: float) -> None:
    assert of_imst(octet).level == level


@pytest.mark.parametrize(("octet", "level"), [(0, -74.0), (127, -10.5), (128, -138.0), (0xF6, -79.0)])
def test_the_signal_strength_of_a_cc1101_is_signed_half_decibels(octet: int, level: float) -> None:
    assert of_cc1101(octet).level == level


@pytest.mark.parametrize(
    ("address", "octets"),
    [
        ("cul", b"brt\r\nX21\r\n"),
        ("cul:c", b"brc\r\nX21\r\n"),
        ("imst", b""),
        ("imst:ct", bytes.fromhex("a5010306 00 02 0a 30 01 00")),
        ("amber:t", bytes.fromhex("ff04010 8f2".replace(" ", ""))),
        ("rtl-433", b""),
    ],
)
def test_a_module_is_set_up_as_its_address_says(address: str, octets: bytes) -> None:
    assert Module.parse(address).set_up() == octets


@pytest.mark.parametrize("address", ["", "stick", "imst:x", "cul:ct", "raw:t", "rtl-433:c", "amber-rssi:T"])
def test_a_module_or_mode_that_is_not_known_is_refused(address: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"receiver|radio mode"):
        Module.parse(address)


def test_who_is_heard_is_bounded_and_counted_by_the_meters_address() -> None:
    now_s = iter(range(100))
    heard = HeardMeters(lambda: float(next(now_s)), count_max=2)
    for number in (1, 2, 1, 3, 1):
        device = DeviceAddress.from_text(f"8ISK01{number:08}", 7)
        octets = WirelessMeter(device, lambda _: [], lambda: CLOCK).datagram()
        heard.take(Datagram(octets, 0, of_imst(100 + number)))
    heard.take(Datagram(b"\x03abc", 0))
    first, second = heard
    assert (first.device, first.count, first.interval_s) == ("8ISK0100000001", 3, 1.5)
    assert (second.count, second.interval_s) == (1, None)
    assert heard.unnamed_count == 2
    assert [each.device[-1] for each in heard.new()] == ["1", "2", "1", "1"]
    assert heard.new() == []


@pytest.mark.parametrize("rssi", ["after", "counted"])
def test_signal_strength_of_amber(rssi: Any) -> None:
    payload = DATAGRAM[1:]
    length = len(payload) + (rssi == "counted")
    frame = bytes([0xFF, 0x03, length]) + payload + b"\x7c"
    check = 0
    for octet in frame:
        check ^= octet
    events = list(AmberReader(rssi).feed(frame + bytes([check])))
    assert [getattr(event, "octets", b"") for event in events] == [DATAGRAM]


def test_lines_that_are_no_telegrams() -> None:
    reader = LineReader()
    damaged = rtl_wmbus_line(DATAGRAM).replace(b"T1;1;1", b"T1;0;1")
    events = list(reader.feed(b"# comment\n\n  \nhello\n" + damaged + b"f" * 5000 + b"\n" + rtl_wmbus_line(DATAGRAM)))
    reasons = [event.reason for event in events if isinstance(event, RemoteProtocolError)]
    assert reasons == ["not_hexadecimal", "block_crc", "line_too_long"]
    assert [event.octets for event in events if isinstance(event, Datagram)] == [DATAGRAM]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"bY" + DATAGRAM.hex().encode(), "block_crc"),
        (b"b" + DATAGRAM.hex().encode(), "length_field"),
        (b"bY" + seal(DATAGRAM, Format.B).hex().encode() + b"83", "length_field"),
        (b"bY" + seal(DATAGRAM, Format.A).hex().encode() + b"83FA", "length_field"),
        (b"bY", "datagram_truncated"),
        (b"bYx", "not_hexadecimal"),
    ],
)
def test_a_line_of_a_cul_without_right_check_sums_is_damage(line: bytes, reason: str) -> None:
    (event,) = LineReader().feed(line + b"\n")
    assert isinstance(event, RemoteProtocolError)
    assert event.reason == reason


def test_one_octet_too_many_is_a_signal_strength_two_too_few_an_error() -> None:
    assert len(list(LineReader().feed(DATAGRAM.hex().encode() + b"7c\n"))) == 1
    (event,) = LineReader().feed(DATAGRAM[:-2].hex().encode() + b"\n")
    assert isinstance(event, RemoteProtocolError)
    assert event.reason == "datagram_truncated"


@pytest.mark.parametrize(("_", "octets"), FRAMINGS)
def test_the_decoder_knows_the_framing_by_its_first_octets(_: type[Any], octets: bytes) -> None:
    whole = [repr(item) for item in decode_stream([octets])]
    assert len(whole) == 2
    assert whole == [repr(item) for item in decode_stream(bytes([octet]) for octet in octets)]


def test_a_bidirectional_meter_is_asked_when_it_listens_and_let_go() -> None:
    source = meter(bidirectional=True)
    request = DataRequest(GATEWAY, DEVICE)
    assert request.heard(meter().datagram(), 0.0) is None  # it does not listen
    assert request.heard(b"\x00", 0.0) is None
    ask = request.heard(source.datagram(), 0.0)
    assert ask is not None
    assert (ask[1], ask[10], request.state) == (0x7B, 0x80, State.ASKED)
    answer = source.answer(ask)
    assert answer is not None
    assert [item.value for item in Receiver().decode(answer) if isinstance(item, Reading)][:1] == [5]
    release = request.heard(answer, 0.5)
    assert release is not None
    assert (release[1], request.state, request.error) == (0x40, State.ENDED, None)
    unasked = source.answer(release)
    assert unasked is not None
    assert Receiver().decode(unasked) == []
    assert request.heard(source.datagram(), 1.0) is None


def test_lost_answers_are_asked_for_at_the_next_transmission_until_given_up() -> None:
    source = meter(bidirectional=True)
    request = DataRequest(GATEWAY, DEVICE, attempt_count_max=2)
    for attempt in range(2):
        now_s = 10.0 * attempt
        assert request.heard(source.datagram(), now_s) is not None
        assert request.next_timer_s() == now_s + 3.0
        request.timeout(now_s + 3.0)
    assert request.state is State.ENDED
    assert request.error is not None
    assert request.error.reason == "no_answer"
    with pytest.raises(LocalProtocolError):
        request.timeout(100.0)


def test_a_window_opened_by_the_configuration_word() -> None:
    datagram = bytearray(meter().datagram())
    datagram[14] |= 0x80
    assert DataRequest(GATEWAY, DEVICE).heard(bytes(datagram), 0.0) is not None


@pytest.mark.parametrize("length", [0xA5, 0xFF])
def test_a_recorded_datagram_as_long_as_a_modules_start_byte_is_read(length: int) -> None:
    """A5 and FF open the frames of radio modules, and are lengths as well; the C field behind tells."""
    body = b"\x44" + DeviceAddress.from_text("8STK0100000001", 7).to_link() + bytes.fromhex("78041307000000")
    datagram = bytes([length]) + body + b"\x2f" * (length - len(body))
    (reading,) = decode_stream([datagram])
    assert isinstance(reading, Reading)
    assert reading.value == 7
