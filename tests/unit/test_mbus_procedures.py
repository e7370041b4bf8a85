"""The primary station's procedures without I/O, against simulated meters: order, retries, selection, search."""

from collections.abc import Collection, Generator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from loadtest.meters.mbus import MBusMeter, answers
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.link import Frame, FrameReader, LongFrame, ShortFrame, encode_frame
from node.lmn.mbus.procedures import (
    Answered,
    Ask,
    Expect,
    Found,
    Garbled,
    SecondaryAddress,
    Silent,
    is_answer,
    parse_address,
    parse_page,
    read_telegrams,
    search,
)
from node.lmn.mbus.telegram import decode_telegram
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis

IMPORT = Obis(1, 0, 1, 8, 0, 255)
CLOCK = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def device(number: int) -> DeviceAddress:
    return DeviceAddress.from_text(f"1ISK01{number:08d}", 2)


def meter(number: int, primary: int = 0, **how: Any) -> MBusMeter:
    return MBusMeter(device(number), lambda _: [(IMPORT, number, 0, 30)] * 5, lambda: CLOCK, primary=primary, **how)


def outcome(ask: Ask, heard: bytes) -> Any:
    if not heard:
        return Silent()
    for event in (reader := FrameReader()).feed(heard):
        if isinstance(event, RemoteProtocolError):
            return Garbled(event)
        if is_answer(event, ask):
            return Answered(event)
    return Garbled(RemoteProtocolError("frame_truncated")) if reader.pending_size else Silent()


def drive(
    procedure: Generator[Ask, Any, Any],
    meters: Sequence[MBusMeter],
    log: list[Frame] | None = None,
    lose: Collection[int] = (),
) -> Any:
    """Run a procedure against meters; `lose` are the indices of the questions whose answers get lost."""
    ask = next(procedure)
    count = 0
    try:
        while True:
            heard = answers(meters, ask.frame)
            if log is not None:
                log.append(ask.frame)
            heard = b"" if count in lose else heard
            count += 1
            ask = procedure.send(outcome(ask, heard))
    except StopIteration as stop:
        return stop.value


def test_reading_begins_with_a_reset_and_the_frame_count_bit_set() -> None:
    log: list[Frame] = []
    (frame,) = drive(read_telegrams(5), [meter(1, 5)], log)
    assert log == [ShortFrame(0x40, 5), ShortFrame(0x7B, 5)]
    assert decode_telegram(frame)[0].value == 1


def test_several_telegrams_are_read_with_the_bit_toggled() -> None:
    log: list[Frame] = []
    frames = drive(read_telegrams(5), [meter(1, 5, records_size_max=6)], log)
    assert [getattr(frame, "control", None) for frame in log[1:]] == [0x7B, 0x5B, 0x7B, 0x5B, 0x7B, 0x5B]
    assert len([r for f in frames for r in decode_telegram(f)]) == 6


def test_a_lost_answer_is_asked_again_and_no_telegram_lost_or_doubled() -> None:
    log: list[Frame] = []
    frames = drive(read_telegrams(5), [meter(1, 5, records_size_max=6)], log, lose={1, 3})
    assert [getattr(frame, "control", None) for frame in log[1:]] == [0x7B, 0x7B, 0x5B, 0x5B, 0x7B, 0x5B, 0x7B, 0x5B]
    assert len({frame.data for frame in frames}) == 6


def test_a_meter_that_sleeps_through_the_first_request_is_read() -> None:
    assert drive(read_telegrams(5), [meter(1, 5, deaf_count=2)])


def test_a_silent_address_is_asked_three_times_and_given_up() -> None:
    log: list[Frame] = []
    with pytest.raises(RemoteProtocolError) as caught:
        drive(read_telegrams(6), [meter(1, 5)], log)
    assert caught.value.reason == "no_answer"
    assert len(log) == 4


def test_two_meters_with_one_primary_address_are_garbage_not_a_reading() -> None:
    with pytest.raises(RemoteProtocolError):
        drive(read_telegrams(0), [meter(11111111), meter(22222222)])


def test_secondary_addressing_reads_the_one_meant() -> None:
    meters = [meter(11111111), meter(11111112), meter(22222222)]
    (frame,) = drive(read_telegrams(device(11111112)), meters)
    assert decode_telegram(frame)[0].device == "1ISK0111111112"
    with pytest.raises(RemoteProtocolError, match="no_answer"):
        drive(read_telegrams(device(11111113)), meters)


def test_what_selects_a_page_comes_before_each_request_of_it() -> None:
    log: list[Frame] = []
    frames = drive(read_telegrams(5, (b"", b"\x50\x10", b"\xb1")), [meter(1, 5)], log)
    assert log[1:] == [
        ShortFrame(0x7B, 5), LongFrame(0x73, 5, 0x50, b"\x10"), ShortFrame(0x5B, 5), LongFrame(0x53, 5, 0xB1),
        ShortFrame(0x7B, 5),
    ]  # fmt: skip
    assert len(frames) == 3


def test_a_page_that_nobody_acknowledges_gives_no_reading() -> None:
    with pytest.raises(RemoteProtocolError, match="page_not_selected"):
        drive(read_telegrams(5, (b"\xb1",)), [meter(1, 5)], lose={1, 2, 3})


def test_a_page_is_selected_by_octets_that_change_nothing_else() -> None:
    assert [parse_page(text) for text in ("default", "B1", "50a0")] == [b"", b"\xb1", b"\x50\xa0"]
    for text in ("", "B", "51017A05", "B8", "BB", "5C", "52FFFFFFFF", "B1" + "00" * 253):
        with pytest.raises(LocalProtocolError, match="a page is default"):
            parse_page(text)


@pytest.mark.parametrize("numbers", [[], [1], [12345678, 12345679, 12345690, 99999999, 0], list(range(40))])
def test_search_finds_every_meter(numbers: list[int]) -> None:
    found = drive(search(), [meter(number) for number in numbers])
    assert found == Found(tuple(sorted((device(n) for n in numbers), key=lambda d: d.number)), ())


def test_a_collision_that_reads_as_valid_hides_no_meter_from_the_search() -> None:
    """The superposition of these two is the first one's telegram to the last bit, check sum included."""

    def pair() -> list[MBusMeter]:
        return [MBusMeter(device(n), lambda _: [(IMPORT, 65536, 0, 30)], lambda: CLOCK) for n in (10, 11)]

    first, second = (answers([one], ShortFrame(0x7B, 254)) for one in pair())
    assert bytes(a & b for a, b in zip(first, second, strict=True)) == first
    assert [d.number for d in drive(search(), pair()).meters] == ["00000010"]
    assert [d.number for d in drive(search(thorough=True), pair()).meters] == ["00000010", "00000011"]


def test_search_within_a_mask() -> None:
    meters = [meter(number) for number in (12345678, 12999999, 88888888)]
    found = drive(search(SecondaryAddress("12FFFFFF")), meters)
    assert {d.number for d in found.meters} == {"12345678", "12999999"}


def test_meters_that_cannot_be_told_apart_are_reported() -> None:
    twin = MBusMeter(
        DeviceAddress.from_text("1ABC0112345678", 2), lambda _: [(IMPORT, 77, 0, 30)], lambda: CLOCK
    )  # fmt: skip
    found = drive(search(), [meter(12345678), twin])
    assert not found.meters
    assert [mask.number for mask in found.collisions] == ["12345678"]


def test_search_ends_on_a_bus_that_is_nothing_but_noise() -> None:
    procedure = search()
    next(procedure)
    noise = Garbled(RemoteProtocolError("checksum"))
    found = None
    for _ in range(25_000):
        try:
            procedure.send(noise)
        except StopIteration as stop:
            found = stop.value
            break
    assert found is not None
    assert not found.meters


def test_a_meter_that_never_ends_is_stopped() -> None:
    procedure = read_telegrams(1)
    next(procedure)
    answer = Answered(LongFrame(8, 1, 0x72, device(1).to_transport() + bytes(4) + b"\x1f"))
    for _ in range(32):
        procedure.send(answer)
    with pytest.raises(RemoteProtocolError, match="too_many_telegrams"):
        procedure.send(answer)


def test_the_answer_of_another_meter_is_no_answer() -> None:
    ask = Ask(ShortFrame(0x7B, 5), Expect.DATA)
    assert not is_answer(LongFrame(8, 6, 0x72), ask)
    assert not is_answer(LongFrame(0x53, 5, 0x72), ask)
    assert is_answer(LongFrame(0x28, 5, 0x72), ask)


def test_a_false_secondary_address_is_our_own_fault() -> None:
    with pytest.raises(LocalProtocolError):
        SecondaryAddress("123")


def test_fabrication_numbers_tell_two_meters_of_one_address_apart() -> None:
    """M-Bus documentation 7.3: 68 11 11 68 53 FD 52, the address, 0C 78 and the number."""
    one, other = meter(12345678, fabrication="00000001"), meter(12345678, fabrication="00000002")
    other._registers = lambda _: [(IMPORT, 2, 0, 30)]
    frames = drive(read_telegrams(parse_address("12345678+00000002")), [one, other])
    assert decode_telegram(frames[0])[0].value == 2
    with pytest.raises(RemoteProtocolError):
        drive(read_telegrams(parse_address("12345678")), [one, other])
    with pytest.raises(RemoteProtocolError, match="no_answer"):
        drive(read_telegrams(parse_address("12345678+00000003")), [one, other])
    mask = parse_address("12345678+0000000F")
    assert isinstance(mask, SecondaryAddress)
    assert mask.to_bytes().hex() == "78563412" + "ffffffff" + "0c78" + "0f000000"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0", 0), ("250", 250), ("1234567f", SecondaryAddress("1234567F")),
        ("1234567824400102", SecondaryAddress("12345678", 0x4024, 1, 2)),
        ("1isk0112345678", SecondaryAddress("12345678", 0x266B, 1, 0xFF)),
        ("FFFFFFFF+12345678", SecondaryAddress("FFFFFFFF", fabrication="12345678")),
    ],
)  # fmt: skip
def test_addresses_as_people_write_them(text: str, address: object) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["251", "1234567", "12345678+", "12345678+1234567G", "1-2", "", "1ISK01123456789"])
def test_what_is_no_address_is_said(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="an M-Bus address is 0 to 250, or a secondary one"):
        parse_address(text)


def test_the_selection_frame_is_the_standards() -> None:
    mask = SecondaryAddress("12345678", 0x4024, 1, 4)
    assert encode_frame(
        LongFrame(0x53, 0xFD, 0x52, mask.to_bytes())
    ).hex() == "680b0b6853fd52785634122440010 41f16".replace(" ", "")
