"""
The gateways of a node as they come to be enrolled: those that are serve, whatever becomes of the others.

A gateway that has its certificates needs nobody's help to start.  One that has none waits for the coordinator as long
as that takes; one that is refused is reported and left out, and costs none of the others anything.  Where the operator
can change that (an id that is to be released, a token) it asks again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import trio

from node.config import NodeConfig
from node.gateway_config import GatewayConfig
from node.security.module import GatewaySecurityModule, KeyDirectory
from node.storage.repositories.attendance import AttendanceRepository
from node.storage.repositories.beacon import BeaconRepository, Since
from node.wan.enrolment import CoordinatorAwayError, Enroller, EnrolmentRefusedError, RingService
from protocol.dcnet.discipline.returns import Attendance
from protocol.errors import StromkreisError

log = logging.getLogger(__name__)
_REFUSED_S = 120.0  # the operator may release its id, or renew its token, meanwhile
_AT_ONCE = 8  # keys are made and answers awaited side by side; more only queue at the coordinator


class Enrolled(NamedTuple):
    """A gateway that may start: its place in the configuration, and how its coordinator is reached."""

    place: int
    module: GatewaySecurityModule
    service: RingService


class Enrolments:
    """
    Those of one node; `enrolled` grows.

    `run` opens what is enrolled already, then reports itself started and enrols the others.
    """

    def __init__(
        self, config: NodeConfig, gateways: Sequence[GatewayConfig], keys: KeyDirectory, beacon: BeaconRepository,
        attendance: AttendanceRepository, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.enrolled: list[Enrolled] = []
        self.modules: list[GatewaySecurityModule] = []
        self._config = config
        self._gateways = gateways
        self._keys = keys
        self._beacon = beacon
        self._attendance = attendance
        self._clock = clock
        self._refused = 0
        self._left = 0
        self._limiter = trio.CapacityLimiter(_AT_ONCE)
        self._changed = trio.Event()

    @property
    def waiting(self) -> int:
        """How many may still be enrolled."""
        return len(self._gateways) - len(self.enrolled) - self._refused - self._left

    @property
    def changed(self) -> trio.Event:
        """Set at the next that is enrolled or refused."""
        return self._changed

    def forget(self, identity: str) -> None:
        """A gateway has left for good."""
        self.enrolled[:] = [each for each in self.enrolled if each.module.identity != identity]
        self.modules[:] = [each for each in self.modules if each.identity != identity]
        self._left += 1

    async def first(self) -> Enrolled:
        """One that is enrolled, once there is any."""
        while not self.enrolled:
            await self._changed.wait()
        return self.enrolled[0]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """
        Return when everybody is enrolled or refused.

        Raises StromkreisError where no gateway is left: what the last one was refused for.
        """
        async with Enroller(self._config) as enroller:
            new: list[tuple[int, GatewaySecurityModule]] = []

            async def open_keys(index: int, gateway: GatewayConfig) -> None:
                async with self._limiter:
                    module = await trio.to_thread.run_sync(self._keys.open, gateway.id)
                    # Before it enrols: a store that serves it later than that does not know what it did under its key.
                    is_first = module.certificate is None
                    await self._beacon.begin(gateway.id, Since(round(self._clock() * 1000), is_first=is_first))
                    if module.certificate is None:
                        new.append((index, module))
                    else:
                        self._take(index, module, await enroller.enrol(module, gateway))

            async with trio.open_nursery() as nursery:
                for index, gateway in enumerate(self._gateways):
                    nursery.start_soon(open_keys, index, gateway)
            task_status.started()
            async with trio.open_nursery() as nursery:
                for index, module in sorted(new, key=lambda each: each[0]):
                    nursery.start_soon(self._enrol, enroller, index, module)

    async def _enrol(self, enroller: Enroller, index: int, module: GatewaySecurityModule) -> None:
        gateway, is_refused = self._gateways[index], False
        while True:
            try:
                async with self._limiter:
                    # Its returns are counted in this store from the beginning.
                    await self._attendance.begin(gateway.id, Attendance.first(0, is_key_new=True))
                    service = await enroller.enrol(module, gateway)
            except CoordinatorAwayError as error:
                log.warning("gateway %s waits to be enrolled, the others serve: %s", gateway.id, error)
            except StromkreisError as error:
                if not is_refused:
                    is_refused = True
                    self._refused += 1
                    if self._refused == len(self._gateways):
                        raise
                    self._report()
                if not (isinstance(error, EnrolmentRefusedError) and error.may_pass):
                    log.error("gateway %s stays out until it is enrolled at the next start: %s", gateway.id, error)
                    return
                log.warning("gateway %s stays out and asks again in %g s: %s", gateway.id, _REFUSED_S, error)
                await trio.sleep(_REFUSED_S)
            else:
                self._refused -= is_refused
                self._take(index, module, service)
                return

    def _take(self, index: int, module: GatewaySecurityModule, service: RingService) -> None:
        self.enrolled.append(Enrolled(index, module, service))
        self.modules.append(module)
        self._report()

    def _report(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
