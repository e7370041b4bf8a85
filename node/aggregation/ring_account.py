"""
One gateway's account with the totals, which all its epochs share: registers in, contributions to the ring of the day.

It begins with the first call, whose schema says which registers it is kept in, and is held against the coordinator's
record before anything is contributed (`account_review`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial

import trio

from node.aggregation.account_basis import ProfiledAccount
from node.aggregation.account_review import AccountReview
from node.aggregation.attendance import GatewayAttendance
from node.aggregation.contribution import Contributions
from node.aggregation.epoch_services import EpochServices
from node.aggregation.ring_subscriber import NAME, RingSubscriber
from node.metering.log import MeteringLog, Subscription
from node.metering.physical_limits import PhysicalLimits
from node.metering.registers import Registers, RegisterSet
from node.security.module import SecurityModule
from node.storage.errors import StoreError
from protocol import wire
from protocol.dcnet.setup.epoch import registration_grid
from protocol.dcnet.setup.schema import Schema
from protocol.errors import RemoteProtocolError
from protocol.log_limit import LogLimiter

log = logging.getLogger(__name__)
_LIMIT_LINE_S = 900.0


class RingAccount:
    """
    That of one gateway behind fuses of `fuse_a` A; `profiled` says what its signed profiles let into it.

    `publish` hands registers to a ring and says whether there was one, `failed` is told of a store that fails.
    `schema` is what it is kept in, `called` the newest call's, with noise and recipients.
    """

    def __init__(
        self, services: EpochServices, module: SecurityModule, metering: MeteringLog, profiled: ProfiledAccount,
        fuse_a: int, review: AccountReview, publish: Callable[[Registers], bool],
        failed: Callable[[StoreError], None],
    ) -> None:  # fmt: skip
        self.schema: Schema | None = None
        self.called: Schema | None = None
        self.contributions: Contributions | None = None
        self.review = review
        self._services = services
        self._module = module
        self._metering = metering
        self._profiled = profiled
        self._fuse_a = fuse_a
        self._publish = publish
        self._failed = failed
        self._limit_lines = LogLimiter(_LIMIT_LINE_S, trio.current_time)
        self._cursor: Subscription | None = None
        self._subscriber: RingSubscriber | None = None
        self._selected = b""
        self._anew_from_s = -math.inf

    @property
    def is_carrying(self) -> bool:
        """Whether energy of missed rounds is still to be released."""
        return self.contributions is not None and self.contributions.is_carrying

    def register_scaler(self, obis: str) -> int | None:
        """The scaler of a register in the account; None before the first call, or where it is not in it."""
        slots = () if self.schema is None else self.schema.slots
        return next((slot.scaler for slot in slots if slot.obis == obis), None)

    def question(self) -> wire.LastContributionRequest | None:
        """What the coordinator is to be asked; see node.aggregation.account_review."""
        return self.review.question(self.contributions)

    async def take_answer(self, message: wire.LastContribution) -> bool:
        """The coordinator's answer; whether the account has moved.  Raises what `AccountReview.take` does."""
        return self.contributions is not None and await self.review.take(self.contributions, message)

    async def use(self, call: wire.EpochCall) -> None:
        """
        Keep the account in a call's registers, from the first call on, and in those that profiles select of them.

        Raises StoreError, and RemoteProtocolError for other registers (`schema_changed`) or such that no meter has
        (`unknown_schema`), and what `ProfiledAccount.select` raises: then nothing has begun.
        """
        called, grid = Schema.from_bytes(call.schema), registration_grid(call)
        schema = called.without_noise().restricted_to(None)
        if self.schema is not None and self.schema != schema:
            # The account is kept in the old schema's registers; a new one is an operator's decision, not a guess.
            raise RemoteProtocolError("schema_changed", "this gateway's account is kept under another schema")
        now_s = grid.registration_s(grid.index_at(self._services.clock()))
        try:
            selection = await self._profiled.select(call, called, now_s)
            registers = RegisterSet(schema, selection.devices, selection.registers, selection.digest)
        except (ValueError, KeyError, StopIteration) as error:
            expected = "expected OBIS codes, units of the DLMS table and an energy"
            raise RemoteProtocolError(
                "unknown_schema", f"a schema of registers that no meter has; {expected}"
            ) from error
        if self.contributions is None:
            account, cursor = await self._begin(schema, now_s)
        else:
            account, cursor = self.contributions, None
        await account.select(selection.digest, max(selection.since_s, self._anew_from_s))
        if account.has_begun and self._profiled.must_begin_anew(selection, schema):
            # A ring before this epoch's may live: nothing of another selection goes into its rounds.
            self._anew_from_s = call.interval_start_s
            account.zero_from_s = max(selection.since_s, self._anew_from_s)
            await self._begin_anew(account, now_s)
            self._selected = b""
        await self._profiled.follow(selection, call)
        # After what cannot be read has been tried: then the next call tries again.
        self.contributions, self.schema, self.called = account, schema, called
        is_possible = partial(self._is_possible, PhysicalLimits(schema, self._fuse_a, account.last_registers))
        if cursor is not None:
            self._subscriber = RingSubscriber(account, registers, cursor, self._publish, self._failed, is_possible)
            self._selected = selection.digest
            await self._subscriber.start()
        elif self._subscriber is not None and self._selected != selection.digest:
            self._subscriber.use(registers, is_possible)
            self._selected = selection.digest

    async def _begin(self, schema: Schema, now_s: int) -> tuple[Contributions, Subscription]:
        """What is durable of the account, held against the keys, and its place in the metering log."""
        services = self._services
        cursor = self._cursor = self._cursor or await self._metering.subscribe(NAME)
        attendance = None
        if services.limit_returns:
            attendance = GatewayAttendance(services.attendance, self._module.identity)
            await attendance.start(now_s)
        account = Contributions(
            services.accounts, self._module.identity, schema, self._module.blinding,
            keep_committed_s=services.billing.keep_s, random_bits=self._module.random_bits, cursor=cursor,
            attendance=attendance, review=self.review.start,
        )  # fmt: skip
        newest = services.attendance.newest_epoch(self._module.identity)
        # Before its first epoch, too, an account has its zero; earlier releases have contributed and noted no epoch.
        if newest is not None or (account.has_begun and account.last is None):
            known = -1 if newest is None else newest.epoch
            await self.review.hold_against_keys(account, known, self._module.newest_bound())
        return account, cursor

    async def _begin_anew(self, account: Contributions, now_s: int) -> None:
        self._services.metrics.noted("account_reselected")
        log.warning(
            "gateway %s: its profiles select other registers for rings than before, or left a gap. The account starts"
            " anew with the next reading; energy until then is in no total, and what was not billed yet is settled by"
            " the register", self._module.identity,
        )  # fmt: skip
        if account.attendance is not None:
            await account.attendance.start_anew(now_s)
        await account.start_anew()

    def _is_possible(self, limits: PhysicalLimits, registers: Registers) -> bool:
        exceeded = limits.exceeded(registers)
        if exceeded is not None:
            self._services.metrics.noted("reading_over_limit")
            if self._limit_lines.is_due(str(exceeded)):  # a meter that sends every second would fill the log
                log.error(
                    "gateway %s: register %s is beyond what a fuse of %d A carries; held back until it is possible. Is"
                    " the meter's fuse_a right, was it exchanged?", self._module.identity, exceeded, self._fuse_a,
                )  # fmt: skip
        return exceeded is None

    def publish_again(self) -> None:
        """There is a ring now: it gets what was read before."""
        if self._subscriber is not None:
            self._subscriber.publish_again()
