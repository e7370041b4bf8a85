"""
One gateway's account with the totals, which all its epochs share: registers in, contributions to the ring of the day.

It begins with the first call, whose schema says which registers it is kept in, and is held against the coordinator's
record before anything is contributed (`account_review`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import trio

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
from protocol.dcnet.setup.schema import Schema
from protocol.errors import RemoteProtocolError
from protocol.log_limit import LogLimiter
from protocol.metering.interval import RegistrationGrid

log = logging.getLogger(__name__)
_LIMIT_LINE_S = 900.0


class RingAccount:
    """
    That of one gateway; `devices` are its meters, behind fuses of `fuse_a` A.

    `publish` hands registers to a ring and says whether there was one, `failed` is told of a store that fails.
    """

    def __init__(
        self, services: EpochServices, module: SecurityModule, metering: MeteringLog, devices: Sequence[str],
        fuse_a: int, review: AccountReview, publish: Callable[[Registers], bool],
        failed: Callable[[StoreError], None],
    ) -> None:  # fmt: skip
        self.schema: Schema | None = None
        self.contributions: Contributions | None = None
        self.review = review
        self._services = services
        self._module = module
        self._metering = metering
        self._devices = devices
        self._fuse_a = fuse_a
        self._publish = publish
        self._failed = failed
        self._limit_lines = LogLimiter(_LIMIT_LINE_S, trio.current_time)
        self._cursor: Subscription | None = None
        self._subscriber: RingSubscriber | None = None

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

    async def use(self, schema: Schema, grid: RegistrationGrid) -> None:
        """
        Keep the account in these registers, from the first call on.

        Raises StoreError, and RemoteProtocolError for other registers (`schema_changed`) or such that no meter has
        (`unknown_schema`): then nothing has begun.
        """
        schema, services = schema.without_noise(), self._services
        if self.schema is not None:
            if self.schema != schema:
                # The account is kept in the old schema's registers; a new one is an operator's decision, not a guess.
                raise RemoteProtocolError("schema_changed", "this gateway's account is kept under another schema")
            return
        try:
            registers = RegisterSet(schema, self._devices)
        except (ValueError, KeyError, StopIteration) as error:
            expected = "expected OBIS codes, units of the DLMS table and an energy"
            raise RemoteProtocolError(
                "unknown_schema", f"a schema of registers that no meter has; {expected}"
            ) from error
        cursor = self._cursor = self._cursor or await self._metering.subscribe(NAME)
        attendance = None
        if services.limit_returns:
            attendance = GatewayAttendance(services.attendance, self._module.identity)
            await attendance.start(grid.registration_s(grid.index_at(services.clock())))
        account = Contributions(
            services.accounts, self._module.identity, schema, self._module.blinding,
            keep_committed_s=services.billing.keep_s, random_bits=self._module.random_bits, cursor=cursor,
            attendance=attendance, review=self.review.start,
        )  # fmt: skip
        newest = services.attendance.newest_epoch(self._module.identity)
        if newest is not None:
            await self.review.hold_against_keys(account, newest.epoch, self._module.newest_bound())
        # After what cannot be read has been tried: then the next call tries again.
        self.contributions, self.schema = account, schema
        limits = PhysicalLimits(schema, self._fuse_a, account.last_registers)
        self._subscriber = RingSubscriber(
            account, registers, cursor, self._publish, self._failed, partial(self._is_possible, limits)
        )
        await self._subscriber.start()

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
