"""
When does something that arrives now leave a line?  Pure arithmetic: time and randomness are arguments.

Order is kept: nothing overtakes what came before it, as on the links that are emulated (radio link control and DSL
deliver in order).  Under load the delay therefore tends to the upper end of the jitter, since whatever follows a late
packet waits behind it.
"""

from __future__ import annotations

import math
from random import Random

from netem.profiles import JITTER_CUT, Direction

SEGMENT_BYTES = 1448
"""A TCP segment's payload on Ethernet with time stamps (RFC 7323)."""
HEADER_BYTES = 66
"""What a segment adds on the line: Ethernet 14, IPv4 20, TCP with time stamps 32."""
RETRANSMISSION_TIMEOUT_MIN_S = 0.2
"""Lower bound of Linux's retransmission timeout; RFC 6298 would have 1 s."""


def draw_delay_s(direction: Direction, rng: Random) -> float:
    """A delay of the direction: normally distributed around `delay_s`, cut at three standard deviations and at 0."""
    if not direction.jitter_s:
        return direction.delay_s
    deviation = max(-JITTER_CUT, min(JITTER_CUT, rng.gauss(0.0, 1.0)))
    return max(0.0, direction.delay_s + deviation * direction.jitter_s)


def retransmission_timeout_s(direction: Direction) -> float:
    """About the timeout of a sender: a round trip of this direction's delay and four deviations (RFC 6298)."""
    return max(RETRANSMISSION_TIMEOUT_MIN_S, 2 * direction.delay_s + 4 * direction.jitter_s)


class DelayLine:
    """Delay and jitter of one direction of a link, in order; rate and loss are somebody else's."""

    def __init__(self, direction: Direction, rng: Random) -> None:
        self.direction = direction
        self._rng = rng
        self._last_s = -math.inf

    def departure_s(self, now_s: float) -> float:
        """When a packet leaves that arrives at `now_s`; never before one that arrived earlier."""
        self._last_s = max(self._last_s, now_s + draw_delay_s(self.direction, self._rng))
        return self._last_s


class StreamLine:
    """
    One direction of a link as a byte stream sees it: rate, delay, jitter, and loss as the wait for a retransmission.

    TCP hides loss from its user and shows delay instead.  Each segment is lost with the direction's probability, each
    retransmission as well; one costs a retransmission timeout, a second the double (RFC 6298 section 5.5).  The line's
    rate is shared by all that use it; each stream keeps its own order (`StreamLine` gives no order between streams).
    """

    def __init__(self, direction: Direction, rng: Random) -> None:
        self.direction = direction
        self.segment_count = 0
        self.retransmission_count = 0
        self._rng = rng
        self._busy_until_s = -math.inf

    def departure_s(self, now_s: float, size_bytes: int) -> float:
        """When the last of `size_bytes` leaves that arrive together at `now_s`."""
        segments = math.ceil(size_bytes / SEGMENT_BYTES)
        self.segment_count += segments
        rate = self.direction.rate_bit_s
        sent_s = now_s
        if rate is not None:
            sent_s = max(now_s, self._busy_until_s) + (size_bytes + segments * HEADER_BYTES) * 8 / rate
            self._busy_until_s = sent_s
        return sent_s + draw_delay_s(self.direction, self._rng) + self._retransmissions_s(segments)

    def queue_wait_s(self, at_s: float) -> float:
        """How long after `at_s` the line's queue has no room: 0 where what it holds is sent within `queue_s`."""
        return max(0.0, self._busy_until_s - at_s - self.direction.queue_s)

    def _retransmissions_s(self, segments: int) -> float:
        if not self.direction.loss:
            return 0.0
        longest_s = 0.0
        for _ in range(segments):
            wait_s, timeout_s = 0.0, retransmission_timeout_s(self.direction)
            while self._rng.random() < self.direction.loss and wait_s < 60:
                self.retransmission_count += 1
                wait_s += timeout_s
                timeout_s *= 2
            longest_s = max(longest_s, wait_s)
        return longest_s
