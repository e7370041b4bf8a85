"""
A whole network in one process: simulated meters, a coordinator and nodes, over real sockets on loopback.

For tests and small experiments; what runs is the very code of the three processes.  Each part can be stopped and
started again, so that a test can take away the coordinator or a node in the middle of a round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import trio
from pydantic import SecretStr

from coordinator.config import CoordinatorConfig, DeliveriesConfig, TimeServiceConfig, WebConfig
from coordinator.epoch_config import EpochConfig
from coordinator.gwa.ca import ROOT_FILE
from coordinator.gwa.enrolment import Directory
from coordinator.oidc_config import OidcConfig
from coordinator.process import run as run_coordinator
from coordinator.recipients import TotalsRecipient
from coordinator.storage.store import Store
from loadtest.account import EnergyBalance, flown
from loadtest.config import MeterProtocol, MetersConfig
from loadtest.households import households
from loadtest.meters.meter_list import MeterEntry
from loadtest.meters.run import run as run_meters
from loadtest.ports import free_port
from loadtest.ring_profiles import GRID_OPERATOR
from loadtest.truth import RoundRow, Verdict, check
from node.config import BillingConfig, LinkConfig, NodeConfig, PolicyConfig, SecurityConfig, TimeConfig
from node.fleet import run as run_node
from node.gateway_config import GatewayConfig
from node.storage.cipher import Cipher, StorageKeys, store_cipher
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.ranges import FUSE_A
from protocol.dcnet.setup.rings import positions_of
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA, Schema
from protocol.wire import Outcome

_JUNE_NOON = 172 * 96 + 48  # a quarter hour in which roofs feed in


def lapse_policy(noise_epsilon_max: float | None = None) -> PolicyConfig:
    """
    What nodes insist on in a test: a quarter hour may pass in a second, in epochs of any length up to a week, in small
    rings and areas that shrink, without profiles, and nobody counts how often a gateway comes back or shows its value
    for a draw.
    """
    return PolicyConfig(
        time_lapse=True, epoch_rounds_min=1, epoch_hours_max=168, noise_epsilon_max=noise_epsilon_max, honest_floor=2,
        limit_returns=False, reveals_max=1000, area_size_confirmed=1, contribute_without_profile=True,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Program:
    """A part of the network that runs in this process, in a scope of its own."""

    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)

    def cancel(self) -> None:
        """Begin to stop it."""
        self.scope.cancel()

    async def stop(self) -> None:
        """Cancel it, and wait until its ports and files are free for the next."""
        self.scope.cancel()
        await self.ended.wait()


@dataclass(slots=True)
class Network:
    """What to run: `gateways` in one area, in rings of `ring_size`, a round every `period_s`."""

    directory: Path
    gateways: int = 8
    ring_size: int = 8
    period_s: float = 1.0
    rounds: int = 20
    relay: bool = False
    area: str = "north"
    origin_unix_s: float = 0.0
    dropout: float = 0.1
    protocols: tuple[MeterProtocol, ...] = ("sml",)
    line: Literal["tcp", "pty"] = "tcp"
    verified: bool = False
    fuse_a: int = FUSE_A
    billing: BillingConfig = field(default_factory=BillingConfig)
    more_areas: tuple[str, ...] = ()
    noise_epsilon: float | None = None
    power: bool = False
    database: str | None = None
    policy: PolicyConfig = field(default_factory=lapse_policy)
    security: SecurityConfig = field(default_factory=SecurityConfig)
    time_port: int | None = None
    deliveries: DeliveriesConfig = field(default_factory=DeliveriesConfig)
    web_config: WebConfig = field(default_factory=lambda: WebConfig(listen=("https://127.0.0.1:0",)))
    quality_seal: Literal["required", "optional"] = "optional"
    meter_list: list[MeterEntry] = field(default_factory=list)
    coordinator_config: CoordinatorConfig | None = None
    token: SecretStr | None = None
    web: list[str] = field(default_factory=list)
    initial_profiles: Path | None = None
    oidc: OidcConfig | None = None
    recipients: tuple[TotalsRecipient, ...] = (TotalsRecipient(participant=GRID_OPERATOR),)
    profile_poll_s: float = 5.0
    cipher_of: Callable[[StorageKeys], Cipher] = store_cipher

    async def start_meters(self, nursery: trio.Nursery) -> None:
        """Serve the meters; returns when all of them listen."""
        self.meter_list = await started(nursery, partial(run_meters, self.meters_config()))

    def meters_config(self) -> MetersConfig:
        """The neighbourhood; quarter hour q is the coordinator's interval q."""
        return MetersConfig(
            count=self.gateways, first_port=0, origin_unix_s=self.origin_unix_s, period_s=self.period_s,
            protocols=self.protocols, link=self.line, start_quarter_hour=_JUNE_NOON,
        )  # fmt: skip

    async def start_coordinator(self, nursery: trio.Nursery) -> Program:
        """Run the coordinator; once it was stopped, calling again starts it anew on the same files and ports."""
        if self.coordinator_config is None:
            self.coordinator_config = CoordinatorConfig(
                listen=f"tcp://127.0.0.1:{free_port()}", web=self.web_config,
                data_dir=self.directory / "coordinator", areas=(self.area, *self.more_areas), database=self.database,
                quality_seal=self.quality_seal, time=TimeServiceConfig(listen=self._time_address, source="vouched"),
                deliveries=self.deliveries, initial_profiles=self.initial_profiles, recipients=self.recipients,
                oidc=self.oidc,
                epoch=EpochConfig(
                    rounds=self.rounds, period_s=self.period_s, origin_unix_s=self.origin_unix_s,
                    ring_size=self.ring_size, power=self.power, corrupt=0.05, dropout=self.dropout,
                    verified=self.verified, noise_epsilon=self.noise_epsilon, fuse_a=self.fuse_a,
                ),
            )  # fmt: skip
        program = Program()
        self.web = await started(nursery, partial(run_coordinator, self.coordinator_config), program)
        if self.token is None:
            store = Store(self.coordinator_config.database_url)
            token = Directory(store.gateways).create_token(
                datetime.now(UTC), uses=self.gateways, area=None if self.more_areas else self.area
            )
            self.token = SecretStr(token)
            store.close()
        return program

    def _url(self, entry: MeterEntry) -> str:
        """A meter's URL, with the fuse that it is behind."""
        return f"{entry.url}{'&' if '?' in entry.url else '?'}fuse_a={self.fuse_a}"

    @property
    def _time_address(self) -> str | None:
        return None if self.time_port is None else f"127.0.0.1:{self.time_port}"

    def node_config(self, first: int, count: int, name: str, area: str | None = None) -> NodeConfig:
        """The configuration of a node that hosts gateways `first` to `first + count - 1`, in their area."""
        if self.coordinator_config is None:
            raise RuntimeError("start the coordinator first")
        entries = self.meter_list[first : first + count]
        return NodeConfig(
            data_dir=self.directory / name, coordinator=self.web[0], area=area or self.area,
            billing=self.billing, policy=self.policy, security=self.security,
            time=TimeConfig(server=self._time_address),
            root_certificate=self.coordinator_config.pki_path / ROOT_FILE, token=self.token,
            gateways=tuple(
                GatewayConfig(
                    id=f"ESTK00{first + index:08d}", meters=(self._url(entry),),
                    keys={entry.id: {name: SecretStr(key) for name, key in entry.keys.items()}} if entry.keys else {},
                )
                for index, entry in enumerate(entries)
            ),
            link=LinkConfig(mode="relay" if self.relay else "direct"), metrics="http://127.0.0.1:0",
            profile_poll_s=self.profile_poll_s,
        )  # fmt: skip

    async def start_node(
        self,
        nursery: trio.Nursery,
        first: int,
        count: int,
        name: str,
        ready: Callable[[str], None] | None = None,
        *,
        area: str | None = None,
    ) -> Program:
        """
        Run a node; cancelling stops it at once, like a crash as far as its peers can tell.

        `ready` gets its monitoring address.
        """
        program = Program()
        node = partial(run_node, self.node_config(first, count, name, area), cipher_of=self.cipher_of)
        address = await started(nursery, node, program)
        if ready is not None:
            ready(address)
        return program

    def ended(self) -> list[Ended]:
        """The round meter_list as it stands in the database, by epoch, ring and round."""
        if self.coordinator_config is None:
            return []
        store = Store(self.coordinator_config.database_url)
        try:
            last = store.epochs.last_number()
            numbers = range(0 if last is None else last + 1)
            return [ended for number in numbers for ended in store.rounds.of_epoch(number)]
        finally:
            store.close()

    def members(self) -> dict[tuple[int, int], tuple[str, ...]]:
        """The gateways of every ring in position order, by (epoch, ring)."""
        if self.coordinator_config is None:
            return {}
        store = Store(self.coordinator_config.database_url)
        try:
            last = store.epochs.last_number()
            numbers = range(0 if last is None else last + 1)
            return {(ring.epoch, ring.ring): ring.members for n in numbers for ring in store.epochs.layout(n)}
        finally:
            store.close()

    @property
    def schema(self) -> Schema:
        """What totals hold, but for noise."""
        return DEFAULT_SCHEMA if self.power else DEFAULT_SCHEMA.without_power()

    def judged(self, ended: Iterable[Ended]) -> Verdict:
        """The round ledger held against the meters' own registers; every gateway's account begins in quarter hour 0."""
        return self.judged_rows(self.rows(ended))

    def judged_rows(self, rows: Iterable[RoundRow], zeros: Mapping[str, Sequence[int]] | None = None) -> Verdict:
        """The same of rows; `zeros` are the quarter hours in which a gateway's account began anew."""
        homes = households(self.meters_config())
        meters = {f"ESTK00{i:08d}": [home] for i, home in enumerate(homes)}
        return check(self.schema, meters, rows, zeros=zeros)

    def rows(self, ended: Iterable[Ended]) -> list[RoundRow]:
        """Ends of rounds with what the database says of their epochs; q counts intervals from `origin_unix_s`."""
        if self.coordinator_config is None:
            raise RuntimeError("start the coordinator first")
        store = Store(self.coordinator_config.database_url)
        intervals = {each.epoch: each.interval_of for each in store.epochs.all()}
        store.close()
        members, interval_index = self.members(), self.coordinator_config.epoch.interval_index
        rows = []
        for each in ended:
            names = members[each.epoch, each.ring]
            is_opened = each.outcome is Outcome.OPENED
            roster = tuple(names[position] for position in positions_of(each.roster)) if is_opened else ()
            q = interval_index(intervals[each.epoch](each.round))
            rows.append(RoundRow(each.epoch, each.ring, each.round, q, is_opened, roster, each.total))
        return rows

    def flown(self, *nodes: str) -> EnergyBalance:
        """Hold the meter_list's totals against the stores of these stopped nodes; see `loadtest.account`."""
        if self.coordinator_config is None:
            raise RuntimeError("start the coordinator first")
        return flown(self.schema, self.ended(), self.members(), [self.directory / name for name in nodes])

    async def wait_until(self, condition: Callable[[], object], timeout_s: float = 300.0) -> None:
        """Return as soon as `condition` is true of the files; raises trio.TooSlowError after `timeout_s`."""
        with trio.fail_after(timeout_s):
            while not await trio.to_thread.run_sync(condition):
                await trio.sleep(self.period_s / 10)

    def head_of(self, ended: Ended) -> str:
        """The gateway that was head when a round ended."""
        if self.coordinator_config is None:
            raise RuntimeError("start the coordinator first")
        store = Store(self.coordinator_config.database_url)
        try:
            members = store.epochs.layout(ended.epoch)[ended.ring].members
            return members[ended.term % len(members)]
        finally:
            store.close()

    async def wait_for_rounds(self, count: int, timeout_s: float = 300.0) -> list[Ended]:
        """Return as soon as `count` ring rounds have ended; raises trio.TooSlowError after `timeout_s`."""
        with trio.fail_after(timeout_s):
            while len(ended := await trio.to_thread.run_sync(self.ended)) < count:
                await trio.sleep(self.period_s / 10)
        return ended


async def started(nursery: trio.Nursery, serve: Callable[..., Any], program: Program | None = None) -> Any:
    """Start a `run(config, ready=...)` in the nursery and return what it hands to `ready`."""
    ready = trio.Event()
    told: list[Any] = []

    def on_ready(what: Any) -> None:
        told.append(what)
        ready.set()

    async def run(one: Program) -> None:
        with one.scope:
            await serve(ready=on_ready)
        one.ended.set()

    nursery.start_soon(run, program or Program())
    await ready.wait()
    return told[0]
