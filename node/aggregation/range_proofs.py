"""
Range proofs that the round ledger asks a gateway for: one at a time, off the trio thread, each made once.

A proof discloses that a committed value lies in its range, and nothing else; the range is one that every value of this
connection lies in (protocol.dcnet.setup.ranges), so a narrower one is refused.  What was committed to is kept until it
is billed (node.aggregation.bills).  A request may come before the round is settled here: it waits for that.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from node.aggregation.bills import BillStore
from node.metrics import NodeMetrics
from node.storage.errors import StoreError
from node.storage.repositories.bills import CommittedValue
from protocol import wire
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.range_proof import Entropy, prove_range
from protocol.dcnet.machines.range_draw import range_text
from protocol.dcnet.setup.ranges import check_ranges, contribution_limit, value_bits
from protocol.dcnet.setup.schema import Schema, Slot
from protocol.errors import RemoteProtocolError
from protocol.metering.interval import QUARTER_HOUR_S

log = logging.getLogger(__name__)
_WAITING_MAX = 32  # requests; a ledger draws a gateway for some four rounds a day
_PROOFS_KEPT = 4  # of 5 KB: a request that is repeated, because the answer was lost, costs nothing
_AT_ONCE = 1  # proofs of all gateways of a process, 7 ms each
_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("range proofs")

_Key = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Statement:
    """What is to be proved of one slot."""

    slot: int
    bits: int
    committed: CommittedValue = field(repr=False)


class RangeProofs:
    """Those of one gateway behind fuses of `fuse_a` A; `schema` is that of its account, None before the first call."""

    def __init__(
        self, store: BillStore, gateway: str, pedersen: Pedersen, schema: Callable[[], Schema | None], fuse_a: int,
        metrics: NodeMetrics, post: Callable[[wire.Message], None], entropy: Entropy,
    ) -> None:  # fmt: skip
        self._store = store
        self._gateway = gateway
        self._pedersen = pedersen
        self._schema = schema
        self._fuse_a = fuse_a
        self._metrics = metrics
        self._post = post
        self._entropy = entropy
        self._waiting: dict[_Key, wire.RangeRequest] = {}
        self._proved: OrderedDict[wire.RangeRequest, wire.RangeProof] = OrderedDict()
        self._wanted = trio.Event()

    def receive(self, request: wire.RangeRequest) -> None:
        """Answer as soon as it can be answered; one that finds too many waiting is dropped, and comes again."""
        key = request.epoch, request.ring, request.round
        if key not in self._waiting and len(self._waiting) >= _WAITING_MAX:
            self._metrics.dropped("range_proofs")
            return
        self._waiting[key] = request
        self._wanted.set()

    def account_moved(self) -> None:
        """A round was settled: a request may have waited for it."""
        if self._waiting:
            self._wanted.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            for key, request in list(self._waiting.items()):
                try:
                    answer = self._proved.get(request) or await self._answer(request)
                except StoreError as error:  # it comes again
                    self._metrics.store_error()
                    log.error("gateway %s does not prove a range: %s", self._gateway, error)
                    answer = None
                    self._waiting.pop(key, None)
                if answer is not None:
                    self._waiting.pop(key, None)
                    self._post(answer)

    async def _answer(self, request: wire.RangeRequest) -> wire.RangeProof | None:
        """The proofs; none in it where they cannot be made; None where the round is not settled yet."""
        about = request.epoch, request.ring, request.round, request.position
        try:
            statements = self._statements(request)
        except RemoteProtocolError as error:
            self._metrics.noted("range_not_proved")
            log.warning("gateway %s does not prove a range: %s", self._gateway, error)
            return wire.RangeProof(*about, ())
        if statements is None:
            return None
        proofs = await trio.to_thread.run_sync(self._prove, request, statements, limiter=_own_limiter())
        answer = self._proved[request] = wire.RangeProof(*about, proofs)
        if len(self._proved) > _PROOFS_KEPT:
            self._proved.popitem(last=False)
        self._metrics.noted("range_proved")
        return answer

    def _statements(self, request: wire.RangeRequest) -> list[_Statement] | None:
        schema = self._schema()
        if schema is None or not schema.committed:
            raise RemoteProtocolError("nothing_committed", "this gateway commits to nothing")
        check_ranges(schema, request.fuse_a, request.interval_s, self._fuse_a)
        if request.interval_s < QUARTER_HOUR_S:
            raise RemoteProtocolError(
                "narrow_range", f"an interval of {request.interval_s} s, expected {QUARTER_HOUR_S}"
            )
        if request.interval_start_s in self._store.open_intervals(self._gateway):
            return None
        return [self._statement(index, schema.slots[index], request) for index in schema.committed]

    def _statement(self, index: int, slot: Slot, request: wire.RangeRequest) -> _Statement:
        start_s = request.interval_start_s
        committed = self._store.committed(self._gateway, str(slot.obis), start_s, start_s).get(start_s)
        if committed is None:
            raise RemoteProtocolError("value_not_kept", "what was committed to is billed, too old, or was never opened")
        bits = value_bits(slot, request.fuse_a, request.interval_s)
        if not 0 <= committed.value <= contribution_limit(bits):
            raise RemoteProtocolError("value_out_of_range", "what was committed to is not in the range")
        return _Statement(index, bits, committed)

    def _prove(self, request: wire.RangeRequest, statements: list[_Statement]) -> tuple[bytes, ...]:
        proofs = []
        for each in statements:
            value, blinding = each.committed.value, each.committed.blinding
            text = range_text(
                request.epoch_digest, request.ring, request.round, request.position, each.slot,
                self._pedersen.commit(value, blinding), each.bits,
            )  # fmt: skip
            proofs.append(prove_range(self._pedersen, value, blinding, each.bits, text, self._entropy))
        return tuple(proofs)


def _own_limiter() -> trio.CapacityLimiter:
    try:
        return _limiter.get()
    except LookupError:
        _limiter.set(trio.CapacityLimiter(_AT_ONCE))
        return _limiter.get()
