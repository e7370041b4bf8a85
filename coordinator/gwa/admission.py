"""
Who may connect and join, by the directory, which worker threads ask: a database that stalls holds no round up.

Every handshake and every join is looked up anew; nothing that is remembered lets anybody in.  So whoever was revoked a
moment ago is refused by the next look, and while the directory cannot be read nobody comes in and those who are here
go on.  Whoever was revoked while connected is found by a look at the whole list every EXPEL_S.

A join whose certificate is not in the enrolment log yet waits for it, until its window closes: no member would take it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import trio
from sqlalchemy.exc import SQLAlchemyError

from coordinator.events import Emit, GatewaysRevoked, JoinAccepted, Joined, JoinRefused, StoreFailed
from coordinator.gwa.joining import check_join
from coordinator.storage.gateways import GatewayRecord, GatewayRepository, GatewayStatus
from coordinator.threads import RETRY_S, look_up
from protocol import wire
from protocol.errors import RemoteProtocolError

EXPEL_S = 5.0  # between two looks for gateways that were revoked; longer, and one stays connected longer
_LOOKS_MAX = 4  # handshakes looked up at once; more wait their turn, and other threads find the database free
_LOG_S = 0.2  # between two looks whether certificates are in the enrolment log
_JOINS_MAX = 64  # joins looked up at once: those who came first need not wait for thousands behind them


@dataclass(frozen=True, slots=True)
class _Join:
    call: wire.EpochCall
    identity: str
    message: wire.Join
    until_s: float


class Admission:
    """The gateways that were let in since the start, and how many are enrolled in each area, at the last look."""

    def __init__(
        self,
        directory: GatewayRepository,
        clock: Callable[[], float],
        emit: Emit,
        logged: Callable[[Collection[bytes]], set[bytes]],
    ) -> None:
        """`logged` says which certificates (SHA-256) are under a signed head of the enrolment log."""
        self.gateways: dict[str, GatewayRecord] = {}
        self.enrolled: dict[str, int] = {}
        self._directory = directory
        self._logged = logged
        self._clock = clock
        self._emit = emit
        self._revoked: frozenset[str] = frozenset()
        self._looks = trio.CapacityLimiter(_LOOKS_MAX)
        self._joins: dict[tuple[int, str], _Join] = {}
        self._wanted = trio.Event()

    async def authorise(self, curve_key: bytes) -> str | None:
        """The gateway that owns a CURVE key, if it is enrolled and active: what ZAP asks."""
        try:
            gateway = await trio.to_thread.run_sync(
                self._directory.active_by_curve_key, curve_key, limiter=self._looks, abandon_on_cancel=True
            )
        except SQLAlchemyError as error:
            self._emit(StoreFailed.by(error, "the directory cannot be read, nobody is let in"))
            return None
        if gateway is None or gateway.gateway_id in self._revoked:
            return None
        self.gateways[gateway.gateway_id] = gateway
        return gateway.gateway_id

    def join(self, call: wire.EpochCall, identity: str, message: wire.Join, until_s: float) -> None:
        """Look a join up; while the directory cannot be read again and again, until the window closes at `until_s`."""
        self._joins[call.epoch, identity] = _Join(call, identity, message, until_s)
        self._wanted.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_joins_up)
            nursery.start_soon(self._look_for_revoked)

    async def _look_joins_up(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            while self._joins:
                now_s = self._clock()
                self._joins = {key: each for key, each in self._joins.items() if now_s <= each.until_s}
                batch = list(self._joins.values())[:_JOINS_MAX]
                try:
                    found = await look_up(self._check, batch)
                except SQLAlchemyError as error:
                    self._emit(StoreFailed.by(error, "the directory cannot be read, gateways wait to join"))
                    await trio.sleep(RETRY_S)
                    continue
                for join, answer in zip(batch, found, strict=True):
                    key = join.call.epoch, join.identity
                    if self._joins.get(key) is join:  # else another try's has come
                        del self._joins[key]
                        if answer is None:
                            self._joins[key] = join  # behind those that may be answered
                    if answer is None:
                        continue
                    if isinstance(answer, RemoteProtocolError):
                        self._emit(JoinRefused(join.identity, answer))
                    elif join.identity in self._revoked:
                        self._emit(JoinRefused(join.identity, _revoked_error()))
                    else:
                        self._emit(JoinAccepted(join.call.epoch, join.identity, answer))
                if not any(found):
                    await trio.sleep(_LOG_S)

    def _check(self, batch: Sequence[_Join]) -> list[Joined | RemoteProtocolError | None]:
        """In a worker thread: what goes into the layout for each join, or why it does not; None: not logged yet."""
        found = self._directory.some([each.identity for each in batch])
        digests = {name: hashlib.sha256(each.certificate).digest() for name, each in found.items()}
        waiting = set(digests.values()) - self._logged(digests.values())
        return [
            self._check_one(each, found.get(each.identity)) if digests.get(each.identity) not in waiting else None
            for each in batch
        ]  # fmt: skip

    def _check_one(self, join: _Join, gateway: GatewayRecord | None) -> Joined | RemoteProtocolError:
        if gateway is None or gateway.status is not GatewayStatus.ACTIVE:
            return _revoked_error()
        try:
            return check_join(join.call, gateway, join.message)
        except RemoteProtocolError as error:
            return error

    async def _look_for_revoked(self) -> None:
        while True:
            try:
                revoked, self.enrolled = await look_up(self._look)
            except SQLAlchemyError as error:
                self._emit(StoreFailed.by(error, "the directory cannot be read, nobody is revoked"))
            else:
                self._revoked = frozenset(revoked)
            self._emit(GatewaysRevoked(self._revoked))
            await trio.sleep(EXPEL_S)

    def _look(self) -> tuple[list[str], dict[str, int]]:
        return self._directory.revoked(), self._directory.count_by_area()


def _revoked_error() -> RemoteProtocolError:
    return RemoteProtocolError("gateway_revoked", "a join of a gateway that was revoked")
