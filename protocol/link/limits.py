"""
The knobs of a link, each with its unit and with what raising or lowering it costs.

libzmq's defaults suit a handful of trusted peers.  Here one coordinator faces thousands of gateways that may all
come back in the same second after a power cut, and a gateway's process may hold thousands of connections.
"""

from __future__ import annotations

from dataclasses import dataclass

CURVE_OVERHEAD_BYTES = 33
"""What a CURVE MESSAGE command adds to a payload: name 8, nonce 8, flags 1, authenticator 16 (ZeroMQ RFC 26)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLimits:
    """
    Bounds and time-outs of one `Listener` or `Connection`.

    `message_bytes_max`: largest payload; a larger one from a peer costs it its connection before it is allocated.
        At least 1024, because the CURVE handshake has to fit.
    `queue_messages`: high-water mark of each direction and peer, in messages.  Memory per peer is bounded by
        about twice this times the message size; too low, and a burst (a ring's rosters) makes senders wait.
    `backlog`: TCP connections the kernel keeps for us between two accepts.  libzmq's 100 makes 3,000 gateways that
        connect at once wait for SYN retransmissions: 31 s instead of 2 s.  The kernel caps it at net.core.somaxconn.
    `handshake_s`: how long a TCP connection may take to finish CURVE.  Lower, and a fleet that reconnects at once
        times itself out and starts over; higher, and half-open connections hold file descriptors longer.
    `keepalive_s`, `peer_gone_s`: after how long a silence the kernel asks whether the peer is there (whole seconds),
        and how long questions or data may go unanswered before the connection is given up.  Without them a peer behind
        a dead NAT entry looks alive for ever.  They are TCP's, not ZMTP's PING: for each of those libzmq 4.3.5 walks
        the list of all timers of its I/O thread, and each connection has one, so that 5,000 idle ones take a quarter
        of a core, the next handshake ten times as long as the first, and 10,000 never get linked.
    `reconnect_s`, `reconnect_s_max`: first pause and largest pause before a new attempt; libzmq doubles it while TCP
        is refused.  Each connection stretches both by a random factor of 1 to 2, since libzmq does not jitter once a
        maximum is set and a restarted coordinator would see its whole fleet in lockstep.
    `refusal_delay_s`: how long a listener lets a refused key wait for its refusal.  libzmq's client retries a refused
        handshake at `reconnect_s` for ever without doubling; the delay is what paces it.  Below `handshake_s`.
    `linger_s`: how long closing may take to flush what was sent.  0 loses the last messages of a good-bye.
    """

    message_bytes_max: int = 1 << 20
    queue_messages: int = 256
    backlog: int = 4096
    handshake_s: float = 30.0
    keepalive_s: int = 20
    peer_gone_s: float = 20.0
    reconnect_s: float = 0.2
    reconnect_s_max: float = 5.0
    refusal_delay_s: float = 2.0
    linger_s: float = 1.0

    def __post_init__(self) -> None:
        if self.message_bytes_max < 1024:
            raise ValueError("message_bytes_max: at least 1024, the CURVE handshake must fit")
        # 0 means unbounded to libzmq; at 1 the routing id fills its pipe for ever and a ROUTER hears nothing (4.3.5).
        if self.queue_messages < 2 or self.backlog < 1:
            raise ValueError("queue_messages: at least 2; backlog: at least 1")
        if self.keepalive_s < 1 or self.peer_gone_s <= 0:
            raise ValueError("keepalive_s: at least 1, and whole; peer_gone_s: above 0")
        if not 0 <= self.refusal_delay_s < self.handshake_s:
            raise ValueError("refusal_delay_s: at least 0 and below handshake_s, or the refusal times out by itself")
