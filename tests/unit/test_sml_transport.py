"""SML transport version 1: escapes, fill bytes, check sums, and what goes wrong on the way."""

from typing import Any

import pytest

from node.lmn.sml import crc
from node.lmn.sml.transport import ESCAPE, START, Frame, FrameError, TransportReader, wrap


def feed(data: bytes, **settings: Any) -> list[tuple[Any, int | None]]:
    reader = TransportReader(**settings)
    items = reader.feed(data) + reader.end()
    return [(item.payload if isinstance(item, Frame) else item.reason, item.offset) for item in items]


def kermit_frame(payload: bytes) -> bytes:
    fill = -len(payload) % 4
    frame = START + payload + bytes(fill) + ESCAPE + bytes((0x1A, fill))
    return frame + crc.kermit(frame).to_bytes(2, "big")


def test_check_sums_of_the_catalogue() -> None:
    assert crc.x25(b"123456789") == 0x6E90  # 0x906E, written low byte first
    assert crc.kermit(b"123456789") == 0x2189


def test_a_frame_from_the_standards_layout() -> None:
    frame = wrap(b"\x76\x05\x01")
    assert frame[:-2] == bytes.fromhex("1b1b1b1b01010101 760501 00 1b1b1b1b1a01")
    assert feed(frame) == [(b"\x76\x05\x01", 0)]


@pytest.mark.parametrize("size", range(9))
@pytest.mark.parametrize("fill", [b"\x00", b"\x1b"])
def test_fill_bytes_of_any_number(size: int, fill: bytes) -> None:
    assert feed(wrap(fill * size) + wrap(b"x")) == [(fill * size, 0), (b"x", len(wrap(fill * size)))]


@pytest.mark.parametrize("run", range(4, 20))
def test_runs_of_1b_are_escaped_and_come_back(run: int) -> None:
    for payload in (b"a" + b"\x1b" * run + b"b", b"\x1b" * run, b"abc" + b"\x1b" * run, b"\x1b" * run + START):
        assert feed(wrap(payload)) == [(payload, 0)]


def test_kermit_check_sums_are_taken() -> None:
    assert feed(kermit_frame(b"holley")) == [(b"holley", 0)]


def test_a_file_filled_with_four_bytes_where_none_was_needed() -> None:
    frame = START + b"abcd" + bytes(4) + ESCAPE + b"\x1a\x04"
    assert feed(frame + crc.x25(frame).to_bytes(2, "big")) == [(b"abcd", 0)]


@pytest.mark.parametrize("count", [5, 9, 255])
def test_more_fill_bytes_than_there_can_be(count: int) -> None:
    frame = START + bytes(4) + ESCAPE + bytes((0x1A, count))
    assert feed(frame + crc.x25(frame).to_bytes(2, "big")) == [("fill_count", 0)]


def test_a_flipped_bit_gives_an_error_and_the_next_frame() -> None:
    good = wrap(b"good file")
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        items = feed(bytes(bad) + good + good)
        payloads = [item for item, _ in items if isinstance(item, bytes)]
        assert payloads == [b"good file"] * len(payloads)
        assert len(payloads) >= 2
        assert len(items) > len(payloads)


def test_a_frame_that_stops_and_starts_again() -> None:
    good = wrap(b"good file")
    for cut in range(8, len(good)):
        items = feed(good[:cut] + good)
        assert items[-1] == (b"good file", cut)
        assert len(items) == 2
        assert items[0][1] == 0


def test_a_start_hidden_by_what_looks_like_an_escape() -> None:
    good = wrap(b"good file")
    assert feed(START + b"half a file" + ESCAPE + good + good) == [
        ("transport_crc", 0),
        (b"good file", 23),
        (b"good file", 23 + len(good)),
    ]


@pytest.mark.parametrize("lost", range(1, 5))
def test_1b_lost_on_the_way_cost_their_frame_only(lost: int) -> None:
    good = wrap(b"good file" + b"\x1b" * 9)
    for spot in (0, good.index(b"file") + 4, len(good) - 8):
        bad = good[:spot] + good[spot + lost :]
        payloads = [item for item, _ in feed(bad + good + good) if isinstance(item, bytes)]
        assert payloads == [b"good file" + b"\x1b" * 9] * 2


def test_noise_is_counted_where_it_was() -> None:
    good = wrap(b"good file")
    assert feed(b"noise" + good + b"more" + good + b"rest") == [
        ("noise", 0),
        (b"good file", 5),
        ("noise", 5 + len(good)),
        (b"good file", 9 + len(good)),
        ("noise", 9 + 2 * len(good)),
    ]


def test_an_unknown_escape() -> None:
    assert feed(START + b"abcd" + ESCAPE + b"\x02\x00\x00\x00" + wrap(b"x"))[0] == ("escape_unknown", 0)
    assert feed(START + b"abcd" + ESCAPE + b"\x02\x00\x00\x00" + wrap(b"x"))[-1] == (b"x", 20)


def test_a_frame_without_end_is_given_up_at_the_bound() -> None:
    reader = TransportReader(frame_size_max=1000)
    reasons = []
    for _ in range(100):
        reasons += [getattr(item, "reason", "") for item in reader.feed(START + b"x" * 1500)]
        assert reader.buffered <= 1000 + 1508
    assert reasons.count("frame_too_long") == 100


def test_the_bound_is_on_the_frame_and_not_on_what_comes_at_once() -> None:
    frame = wrap(b"x" * 900)
    assert [item for item, _ in feed(frame * 50, frame_size_max=1000)] == [b"x" * 900] * 50
    assert feed(wrap(b"x" * 1001), frame_size_max=1000)[0] == ("frame_too_long", 0)


def test_endless_noise_is_not_kept() -> None:
    reader = TransportReader()
    for _ in range(100):
        assert reader.feed(b"\x1b\x1b" * 500) == []
        assert reader.buffered < len(START)


def test_after_the_end_the_reader_begins_anew() -> None:
    reader = TransportReader()
    reader.feed(wrap(b"abc")[:-1])
    assert [type(item) for item in reader.end()] == [FrameError]
    assert [getattr(item, "payload", b"") for item in reader.feed(wrap(b"abc"))] == [b"abc"]
