"""The link layer: frames there and back, and what a reader makes of damage."""

from typing import Any

import pytest

from node.lmn.mbus.link import Ack, FrameReader, LongFrame, ShortFrame, encode_frame
from protocol.errors import LocalProtocolError, RemoteProtocolError

FRAME = LongFrame(8, 1, 0x72, bytes(range(20)))


@pytest.mark.parametrize(
    "frame", [Ack(), ShortFrame(0x40, 5), LongFrame(0x53, 253, 0x52), FRAME, LongFrame(8, 1, 0x72, bytes(252))]
)
def test_a_frame_survives_the_wire(frame: Any) -> None:
    assert list(FrameReader().feed(encode_frame(frame))) == [frame]


def test_the_bytes_are_those_of_the_standard() -> None:
    assert encode_frame(ShortFrame(0x40, 1)) == bytes.fromhex("1040014116")
    assert encode_frame(LongFrame(0x53, 0xFE, 0x51, bytes.fromhex("017a08"))) == bytes.fromhex(
        "6806066853fe51017a082516"
    )


def test_too_much_user_data_is_our_own_fault() -> None:
    with pytest.raises(LocalProtocolError):
        encode_frame(LongFrame(8, 1, 0x72, bytes(253)))


@pytest.mark.parametrize("position", range(len(encode_frame(FRAME))))
def test_no_single_wrong_octet_gets_through(position: int) -> None:
    octets = bytearray(encode_frame(FRAME))
    octets[position] ^= 0x20
    reader = FrameReader()
    events = [*reader.feed(bytes(octets)), *reader.finish()]
    assert not [event for event in events if isinstance(event, LongFrame)]
    assert [event for event in events if isinstance(event, RemoteProtocolError)]


def test_after_garbage_the_next_frame_is_found_and_the_garbage_reported_once() -> None:
    reader = FrameReader()
    first, second = reader.feed(b"\x00\x68\x68\xe5\xff" + encode_frame(FRAME))
    assert isinstance(first, RemoteProtocolError)
    assert (first.reason, first.offset) == ("not_a_frame", 0)
    assert second == FRAME


def test_an_acknowledgement_inside_garbage_is_none() -> None:
    events = list(FrameReader().feed(b"\x01\xe5\xe5"))
    assert len(events) == 1
    assert isinstance(events[0], RemoteProtocolError)


def test_the_reader_never_holds_more_than_a_frame() -> None:
    reader = FrameReader()
    for _ in range(2000):
        list(reader.feed(b"\x68\xff\xff\x68"))
        assert reader.pending_size <= 261 + 4


@pytest.mark.parametrize("size", [1, 7, 1000], ids=["byte by byte", "in pieces", "at once"])
@pytest.mark.parametrize("kept", [7, 20, 40])
def test_a_segment_that_broke_off_does_not_swallow_the_next(size: int, kept: int) -> None:
    """Its length may stand for 256 more, so the reader waits; a whole frame inside what it waits for ends that."""
    whole = encode_frame(LongFrame(0x53, 0xFF, 0x10, bytes(range(60))))
    stream = whole[:kept] + whole + whole
    reader = FrameReader()
    found = [item for at in range(0, len(stream), size) for item in reader.feed(stream[at : at + size])]
    frames = [item for item in found if isinstance(item, LongFrame)]
    assert frames == [LongFrame(0x53, 0xFF, 0x10, bytes(range(60)))] * 2
    assert sum(isinstance(item, RemoteProtocolError) for item in found) == 1
