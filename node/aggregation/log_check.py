"""A gateway's look at the enrolment log: its newest head, and proofs for every ring that it is to deal to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from node.storage.repositories.enrolment_log import EnrolmentLogRepository, RingHistory
from protocol import wire
from protocol.enrolment_log.entries import TreeHead
from protocol.enrolment_log.proof import check_history, check_proof


@dataclass(frozen=True, slots=True)
class LogCheck:
    """
    `verify(text, signature)` knows the log's key that was pinned at enrolment.

    `confirmed`, from the node's configuration, is the size and root of a log that its operator had to begin anew, or
    to put back: each gateway goes on from that head once, whatever it saw, and from then on the log only grows again.
    """

    repository: EnrolmentLogRepository
    verify: Callable[[bytes, bytes], bool]
    clock: Callable[[], float]
    confirmed: tuple[int, bytes] | None = None
    _missing: dict[str, tuple[int, int]] = field(default_factory=dict, init=False)
    """By gateway: the epoch and ring whose history the log did not have when it was asked last."""

    def request(self, gateway: str, epoch: int) -> wire.LogRequest:
        """What the coordinator is asked.  Raises StoreError."""
        seen, past = self._base(gateway), self.repository.history(gateway)
        asked = (-1, 0) if past is None else (past.epoch, past.ring)
        return wire.LogRequest(epoch, 0 if seen is None else seen.size, *asked)

    async def keep_history(self, gateway: str, epoch: int, ring: int, leaf: bytes) -> bool:
        """
        All rounds of a ring have ended: the log must say the same.  Raises StoreError.

        False where the log did not have the history before this one, when it was asked last.  Until then it may be
        entered: the coordinator does so a period after an epoch's end, and a layout may come before that.
        """
        await self.repository.put_history(gateway, RingHistory(epoch, ring, leaf))
        return self._missing.pop(gateway, None) is None

    async def take(self, gateway: str, proof: wire.LogProof, members: Sequence[wire.MemberRow]) -> bool:
        """
        Return if the answer holds; its head is then the newest, durably.

        Whether the log has the history of the last ring; False where it has none yet, or none was asked for.  Raises
        StoreError, and RemoteProtocolError as `check_proof` and `check_history` do.
        """
        seen = self._base(gateway)
        now_ms = round(self.clock() * 1000)
        head = check_proof(proof, members, seen, self.verify, now_ms)
        past = self.repository.history(gateway)
        is_logged = past is not None and check_history(proof, head, past.epoch, past.ring, past.leaf)
        if seen is None or seen.time_ms == 0 or (seen.size, seen.root) != (head.size, head.root):
            await self.repository.put_head(gateway, head, self.confirmed)
        if is_logged:
            await self.repository.forget_history(gateway)
            self._missing.pop(gateway, None)
        elif past is not None:
            self._missing[gateway] = past.epoch, past.ring
        return is_logged

    def _base(self, gateway: str) -> TreeHead | None:
        """The head that the log must continue."""
        if self.confirmed is None or self.repository.confirmed(gateway) == self.confirmed:
            return self.repository.head(gateway)
        return TreeHead(*self.confirmed, 0, b"")

    async def keep_evidence(self, gateway: str, epoch: int, reason: str, messages: Sequence[wire.Message]) -> None:
        """Keep what was refused.  Raises StoreError."""
        now_ms = round(self.clock() * 1000)
        await self.repository.put_evidence(gateway, epoch, now_ms, reason, [wire.encode(each) for each in messages])
