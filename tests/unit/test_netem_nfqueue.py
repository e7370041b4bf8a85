"""NFQUEUE's netlink messages as the kernel's headers have them, and when a packet gets its verdict."""

import struct
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from netem.delay import DelayLine
from netem.nfqueue import QueuedPacket, VerdictScheduler, configuration, parse, verdict
from netem.profiles import Direction


def packet_message(number: int, in_interface: int, out_interface: int) -> bytes:
    """As the kernel sends it: packet header, hook's interfaces, and an attribute that nobody reads."""
    attributes = b"".join(
        struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
        for kind, value in (
            (1, struct.pack("!IHB", number, 0x0800, 2)),
            (5, struct.pack("!I", in_interface)),
            (6, struct.pack("!I", out_interface)),
            (13, b"\x00\x00\x05"),
        )
    )
    return struct.pack("=IHHIIBBH", 20 + len(attributes), 0x0300, 0, 0, 0, 2, 0, 0) + attributes


def test_a_verdict_is_an_accept_for_the_packets_number() -> None:
    # nlmsghdr (32 bytes in all, NFQNL_MSG_VERDICT, NLM_F_REQUEST), nfgenmsg with queue 7, NFQA_VERDICT_HDR.
    assert verdict(7, 0x01020304) == (
        struct.pack("=IHHII", 32, 0x0301, 1, 0, 0) + bytes([0, 0, 0, 7])
        + struct.pack("=HH", 12, 2) + bytes([0, 0, 0, 1, 1, 2, 3, 4])
    )  # fmt: skip


def test_a_queue_is_bound_with_metadata_only_and_a_bound_on_its_length() -> None:
    bind, settings = configuration(0, 500)
    assert bind[:8] == struct.pack("=IHH", 28, 0x0302, 5)
    assert bind[20:] == struct.pack("=HH", 8, 1) + bytes([1, 0, 0, 2])
    assert settings[20:32] == struct.pack("=HH", 9, 2) + bytes([0, 0, 0, 0, 1, 0, 0, 0])
    assert settings[32:40] == struct.pack("=HH", 8, 3) + struct.pack("!I", 500)


def test_packets_are_read_with_their_interfaces_and_errors_with_their_number() -> None:
    error = struct.pack("=IHHIIi", 36, 2, 0, 0, 0, -22) + bytes(16)
    datagram = packet_message(5, 3, 4) + error + packet_message(6, 4, 3)
    assert list(parse(datagram)) == [QueuedPacket(5, 3, 4), 22, QueuedPacket(6, 4, 3)]


def test_a_message_that_is_cut_off_ends_the_reading_without_harm() -> None:
    whole = packet_message(5, 3, 4)
    for length in range(len(whole)):
        assert list(parse(whole[:length])) == []


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_an_exception(datagram: bytes) -> None:
    list(parse(datagram))


@given(st.binary(max_size=60))
def test_any_attributes_are_read_without_an_exception(attributes: bytes) -> None:
    header = struct.pack("=IHHIIBBH", 20 + len(attributes), 0x0300, 0, 0, 0, 2, 0, 0)
    assert len(list(parse(header + attributes))) <= 1


def test_packets_of_one_line_go_on_in_order_after_their_delay() -> None:
    line = DelayLine(Direction(delay_s=1, jitter_s=0.4), Random(3))
    scheduler = VerdictScheduler(lambda _: [line])
    for number in range(100):
        scheduler.add(QueuedPacket(number, 1, 2), number * 0.01)
    assert scheduler.due(0.0) == []
    went = [number for now in range(500) for number in scheduler.due(now * 0.01)]
    assert went == list(range(100))
    assert len(scheduler) == 0


def test_a_slow_first_line_does_not_hold_up_others_on_a_shared_second() -> None:
    slow, fast = DelayLine(Direction(delay_s=5), Random(1)), DelayLine(Direction(delay_s=0.1), Random(1))
    shared = DelayLine(Direction(delay_s=0.2), Random(1))
    scheduler = VerdictScheduler(lambda packet: [slow if packet.in_interface == 1 else fast, shared])
    scheduler.add(QueuedPacket(1, 1, 9), 0.0)
    scheduler.add(QueuedPacket(2, 2, 9), 0.0)
    assert scheduler.next_s == 0.1
    assert scheduler.due(0.31) == [2]
    assert scheduler.due(5.1) == []
    assert scheduler.due(5.21) == [1]


def test_packets_without_a_line_go_on_at_once() -> None:
    scheduler = VerdictScheduler(lambda _: [])
    scheduler.add(QueuedPacket(1, 1, 2), 3.0)
    scheduler.add(QueuedPacket(2, 1, 2), 3.0)
    assert scheduler.due(3.0) == [1, 2]
