"""
One gateway's logs: events go in from wherever they happen, entries are durable in the order of the events.

Who notes an event does not wait for the disk; what has come is written in one transaction, by a task that ends when
nothing is left.  Too many events at once cost only the newest of them, and a count of what was lost is an entry of its
own.  The calibration log is
chained and signed (protocol.logs.chain) and never shortened; the others keep their newest entries.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import trio

from node.storage.engine import Statement
from node.storage.errors import StoreError
from node.storage.repositories.gateway_logs import GatewayLogRepository
from protocol.errors import LocalProtocolError
from protocol.logs.chain import FIRST, ChainedEntry
from protocol.logs.events import Event, Log, Parameter

log = logging.getLogger(__name__)
ENTRIES_KEPT = 10_000
"""Of the system log and of the consumer log, each."""
_WAITING_MAX = 256
_TEXT_MAX = 200

Sign = Callable[[bytes], bytes]


class GatewayLog:
    """
    The logs of one gateway.

    `clock` is real time (Unix, s); `sign` signs by the gateway's certificate and raises LocalProtocolError before there
    is one.
    """

    __slots__ = (
        "_clock", "_gateway", "_is_writing", "_lost", "_newest", "_nursery", "_previous", "_repository", "_sign",
        "_waiting", "_watcher",
    )  # fmt: skip

    def __init__(self, repository: GatewayLogRepository, gateway: str, clock: Callable[[], float], sign: Sign) -> None:
        self._repository = repository
        self._gateway = gateway
        self._clock = clock
        self._sign = sign
        self._nursery: trio.Nursery | None = None
        self._waiting: list[tuple[Event, int, dict[str, Parameter]]] = []
        self._lost = 0
        self._is_writing = False
        self._newest: dict[Log, int] | None = None
        self._previous = FIRST
        self._watcher: Callable[[Event], None] | None = None

    def watch(self, watcher: Callable[[Event], None]) -> None:
        """Have `watcher` told of each event, as it is noted."""
        self._watcher = watcher

    def note(self, event: Event, **parameters: Parameter) -> None:
        """
        Note an event that happens now.

        Raises LocalProtocolError where the parameters are not those of its kind.
        """
        if parameters.keys() != event.value.parameters:
            raise LocalProtocolError(f"{event.name} has the parameters {sorted(event.value.parameters)}")
        if self._watcher is not None:
            self._watcher(event)
        if len(self._waiting) >= _WAITING_MAX:
            self._lost += 1
            return
        cut = {name: each[:_TEXT_MAX] if isinstance(each, str) else each for name, each in parameters.items()}
        self._waiting.append((event, int(self._clock() * 1000), cut))
        self._write_soon()

    def serve_in(self, nursery: trio.Nursery) -> None:
        """Write in tasks of `nursery` from now on, what was noted before included."""
        self._nursery = nursery
        if self._waiting:
            self._write_soon()

    def _write_soon(self) -> None:
        if self._nursery is not None and not self._is_writing:
            self._is_writing = True
            self._nursery.start_soon(self._drain)

    async def _drain(self) -> None:
        try:
            while self._waiting:
                await self._flush()
        finally:
            self._is_writing = False

    async def close(self, event: Event) -> None:
        """Note the last event and write what is waiting, cancelled or not; the nursery has ended by then."""
        self._nursery = None
        self.note(event)
        await self._flush()

    async def _flush(self) -> None:
        """
        Write what is waiting, in one transaction; whole also where it is cancelled, or the chain would be lost.

        A store that does not take it is reported, and the entries are counted as lost.
        """
        waiting, self._waiting = self._waiting, []
        if self._lost:
            waiting.append((Event.ENTRIES_LOST, int(self._clock() * 1000), {"count": self._lost}))
        if not waiting:
            return
        lost, self._lost = self._lost, 0
        try:
            with trio.CancelScope(shield=True):
                await self._write(waiting)
        except StoreError as error:
            self._newest = None  # whether it was written shows the store
            self._lost = lost + len(waiting)
            log.error("gateway %s: %d entries of its logs are lost: %s", self._gateway, len(waiting), error)

    async def _write(self, waiting: Sequence[tuple[Event, int, dict[str, Parameter]]]) -> None:
        newest = self._known()
        numbers, previous = dict(newest), self._previous
        statements: list[Statement] = []
        for event, at_ms, parameters in waiting:
            for which in event.value.logs:
                numbers[which] += 1
                entry = ChainedEntry(self._gateway, numbers[which], at_ms, event.value.number, parameters, FIRST)
                if which is Log.CALIBRATION:
                    entry = self._chained(entry, previous)
                    previous = entry.hash
                statements.append(self._repository.append(which, entry))
        for which in (Log.SYSTEM, Log.CONSUMER):
            if numbers[which] > ENTRIES_KEPT and numbers[which] != newest[which]:
                statements.append(self._repository.keep_newest(self._gateway, which, numbers[which] - ENTRIES_KEPT))
        await self._repository.store.write(statements)
        self._newest, self._previous = numbers, previous

    def _chained(self, entry: ChainedEntry, previous: bytes) -> ChainedEntry:
        chained = ChainedEntry(
            entry.gateway, entry.number, entry.at_ms, entry.event, entry.parameters, previous
        )  # fmt: skip
        try:
            signature = self._sign(chained.signed_text)
        except LocalProtocolError:  # not enrolled yet: the next signed entry covers this one
            return chained
        return ChainedEntry(
            chained.gateway, chained.number, chained.at_ms, chained.event, chained.parameters, previous, signature
        )  # fmt: skip

    def _known(self) -> dict[Log, int]:
        if self._newest is None:
            newest = self._repository.newest(self._gateway, Log.CALIBRATION)
            self._previous = FIRST if newest is None else newest.hash
            self._newest = {which: self._repository.newest_number(self._gateway, which) for which in Log}
        return self._newest
