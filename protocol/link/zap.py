"""
ZAP, the ZeroMQ Authentication Protocol (ZeroMQ RFC 27), for CURVE keys.

libzmq asks it once per handshake, over an in-process socket, after the client has proved that it holds the secret half
of the key it shows (RFC 26, the vouch).  Each listener has a ZAP domain of its own, so that every listener is asked
about its own visitors only.

Findings about libzmq 4.3.5 that shaped the answers:

- A refusal with status 400 makes libzmq's client give the connection up for ever, without telling its application: a
  gateway that knocks one second before its enrolment arrives would never come back.
- Status 300 ("temporary") leaves both ends hanging until ZMQ_HANDSHAKE_IVL.
- A status that ZAP does not know closes the connection at once on our side, which the client takes for a lost
  connection: it knocks again.  That is the refusal we want, so `REFUSED` is such a status.
- That client then knocks at its first reconnect interval for ever, without backing off, and each knock costs us a CURVE
  handshake.  So a refusal is held back for a while.  How many are held is bounded; over that they go out at once.

A listener may take its time over a key.  Others are asked about meanwhile, `ASKED_MAX` at most: who knocks beyond is
refused, and knocks again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import trio

from protocol.errors import InvariantError
from protocol.link.edge import NOBLOCK, EdgeSocket

ENDPOINT = "inproc://zeromq.zap.01"
REFUSALS_HELD_MAX = 4096
ASKED_MAX = 4096
REFUSED = b"999"

Admit = Callable[[bytes], Awaitable[tuple[str | None, float]]]
"""Given a public key (32 bytes): the User-Id to stamp on its messages, or None; and for how long to hold a refusal."""


class ZapAuthenticator:
    """Answers libzmq's questions about keys, by domain."""

    def __init__(self, edge: EdgeSocket) -> None:
        self._edge = edge
        self._domains: dict[bytes, Admit] = {}
        self._held: deque[tuple[float, list[bytes]]] = deque()
        self._somebody_held = trio.Event()
        self._asked = 0

    def open(self, domain: bytes, admit: Admit) -> None:
        """Ask `admit` about the visitors of `domain`."""
        self._domains[domain] = admit

    def close(self, domain: bytes) -> None:
        """The listener of `domain` is gone: whoever still knocks is refused."""
        self._domains.pop(domain, None)

    async def run(self) -> None:
        """Answer, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                frames = await self._edge.receive(self._take)
                if len(frames) < 8 or frames[2] != b"1.0":
                    raise InvariantError("libzmq sent a ZAP request that is not version 1.0")
                domain, mechanism, credentials = frames[4], frames[7], frames[8:]
                admit = self._domains.get(domain)
                is_curve = mechanism == b"CURVE" and len(credentials) == 1 and len(credentials[0]) == 32
                if admit is None or not is_curve or self._asked >= ASKED_MAX:
                    self._refuse(frames, 0.0)
                    continue
                self._asked += 1
                nursery.start_soon(self._ask, admit, frames, credentials[0])

    async def _ask(self, admit: Admit, frames: list[bytes], key: bytes) -> None:
        user_id, hold_s = await admit(key)
        self._asked -= 1
        if user_id is not None:
            self._answer([*frames[:4], b"200", b"OK", user_id.encode("ascii"), b""])
        else:
            self._refuse(frames, hold_s)

    def _refuse(self, frames: list[bytes], hold_s: float) -> None:
        refusal = [*frames[:4], REFUSED, b"not enrolled", b"", b""]
        if hold_s > 0 and len(self._held) < REFUSALS_HELD_MAX:
            self._held.append((trio.current_time() + hold_s, refusal))
            self._somebody_held.set()
        else:
            self._answer(refusal)

    async def run_refusals(self) -> None:
        """Send the refusals that were held back, for ever, first in, first out: a short hold may wait for a longer."""
        while True:
            await self._somebody_held.wait()
            while self._held:
                due, refusal = self._held.popleft()
                await trio.sleep_until(due)
                self._answer(refusal)
            self._somebody_held = trio.Event()

    def _take(self) -> list[bytes]:
        return self._edge.socket.recv_multipart(NOBLOCK)

    def _answer(self, frames: list[bytes]) -> None:
        # A reply to a session that has gone is dropped by the ROUTER; its pipes have no high-water mark.
        self._edge.socket.send_multipart(frames, NOBLOCK)
        self._edge.after_call()
