"""Delay, jitter, rate and retransmissions of lines: what is drawn is what was asked for, and nothing overtakes."""

import statistics
from itertools import pairwise
from random import Random

import pytest

from netem.delay import DelayLine, StreamLine, draw_delay_s, retransmission_timeout_s
from netem.profiles import Direction


def test_delays_have_the_mean_and_deviation_asked_for() -> None:
    direction = Direction(delay_s=0.1, jitter_s=0.02)
    drawn = [draw_delay_s(direction, Random(seed)) for seed in range(4_000)]
    # Standard errors of 4,000 draws: 0.3 ms of the mean, 0.2 ms of the deviation; the cut at three takes 1 % off it.
    assert statistics.mean(drawn) == pytest.approx(0.1, abs=0.0015)
    assert statistics.stdev(drawn) == pytest.approx(0.02, abs=0.0012)
    assert min(drawn) >= 0.04
    assert max(drawn) <= 0.16


def test_a_packet_never_overtakes_another() -> None:
    line = DelayLine(Direction(delay_s=0.1, jitter_s=0.05), Random(1))
    leaves = [line.departure_s(number * 0.001) for number in range(1_000)]
    assert all(before <= after for before, after in pairwise(leaves))


def test_a_shorter_delay_does_not_let_later_packets_overtake() -> None:
    line = DelayLine(Direction(delay_s=5), Random(1))
    first = line.departure_s(0)
    line.direction = Direction(delay_s=0.1)
    assert line.departure_s(1) == first
    assert line.departure_s(10) == pytest.approx(10.1)


def test_a_stream_takes_the_time_that_its_bytes_and_headers_need() -> None:
    line = StreamLine(Direction(delay_s=0.2, rate_bit_s=80_000), Random(1))
    assert line.departure_s(0, 1_448) == pytest.approx((1_448 + 66) * 8 / 80_000 + 0.2)
    assert line.departure_s(0, 1_448) == pytest.approx(2 * (1_448 + 66) * 8 / 80_000 + 0.2)
    assert line.departure_s(100, 1) == pytest.approx(100 + 67 * 8 / 80_000 + 0.2)


def test_a_queue_is_full_for_what_exceeds_its_time() -> None:
    line = StreamLine(Direction(rate_bit_s=8_000, queue_s=1), Random(1))
    assert line.queue_wait_s(0) == 0
    line.departure_s(0, 2 * 1_434)  # two segments and their headers: 3,000 bytes
    assert line.queue_wait_s(0) == pytest.approx(2)
    assert line.queue_wait_s(1.5) == pytest.approx(0.5)
    assert line.queue_wait_s(9) == 0


def test_lost_segments_wait_for_a_retransmission_as_often_as_the_loss_says() -> None:
    direction = Direction(delay_s=0.05, loss=0.1)
    line = StreamLine(direction, Random(2))
    waits = [line.departure_s(second, 100) - second - 0.05 for second in range(10_000)]
    timeout_s = retransmission_timeout_s(direction)
    late = [wait for wait in waits if wait > 0.001]
    # A standard error of 0.3 percentage points.
    assert len(late) / len(waits) == pytest.approx(0.1, abs=0.012)
    once = sum(wait == pytest.approx(timeout_s) for wait in late)
    assert once / len(late) == pytest.approx(0.9, abs=0.04)
    assert line.segment_count == 10_000
    assert line.retransmission_count >= len(late)


def test_a_line_without_loss_never_waits() -> None:
    line = StreamLine(Direction(delay_s=0.05), Random(2))
    assert all(line.departure_s(second, 100_000) == second + 0.05 for second in range(100))
    assert line.retransmission_count == 0


def test_a_retransmission_waits_a_round_trip_or_the_kernels_minimum() -> None:
    assert retransmission_timeout_s(Direction(delay_s=0.01)) == 0.2
    assert retransmission_timeout_s(Direction(delay_s=0.5, jitter_s=0.1)) == pytest.approx(1.4)
