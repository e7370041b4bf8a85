"""
Many gateways in one process: enrolment, shared services, and one task tree with a branch for each gateway.

One gateway in the field and thousands in a load test run this same code; the difference is the length of a list.
"""

from __future__ import annotations

import importlib.metadata
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import chain

import httpx
import trio
from cryptography import x509
from prometheus_client import CollectorRegistry, ProcessCollector

from node.aggregation.ring_cache import PublicRings
from node.carried_age import CarriedAge
from node.cls.configured import cls_services
from node.config import NodeConfig
from node.configured import (
    billing_rules,
    calendar_policy,
    crowd_policy,
    log_check,
    meter_profiles,
    open_keys,
    policy_of,
    renewal_policy,
    retention,
    retention_of_meters,
    root_certificate,
    time_keeper,
)
from node.departure import Departures, erase_node
from node.descriptors import check_descriptors
from node.firmware.slots import FirmwareDirectory
from node.firmware.supervisor import is_supervised
from node.free_store import free_store
from node.gateway import Gateway, Shared
from node.han.configured import han_services
from node.leave_records import Leave, LeaveRecords, LeaveState
from node.lmn.counters import DurableCounters
from node.lmn.metrics import LMN_METRICS, LMN_READINGS
from node.lmn.pairing import PairingStore
from node.lmn.profiles import MeterProfile
from node.lmn.runtime import Backoff
from node.mdns.configured import mdns_services
from node.metering.log import MeteringLog
from node.metering.retention import LogKeeper
from node.metrics import NodeMetrics
from node.monitoring import serve_monitoring
from node.name_lookups import names_of, watch_names
from node.process_start import JUMP_S, ProcessStart
from node.process_stop import settled
from node.readiness import Readiness
from node.security.module import GatewaySecurityModule, KeyDirectory
from node.storage.cipher import Cipher, StorageKeys, store_cipher
from node.storage.engine import Store
from node.storage.repositories.account_basis import AccountBasisRepository
from node.storage.repositories.accounts import AccountRepository
from node.storage.repositories.attendance import AttendanceRepository
from node.storage.repositories.beacon import BeaconRepository
from node.storage.repositories.bills import BillRepository
from node.storage.repositories.counters import CounterRepository
from node.storage.repositories.gateway_logs import GatewayLogRepository
from node.storage.repositories.metering_log import MeteringLogRepository
from node.storage.repositories.pairings import PairingRepository
from node.storage.repositories.price_sheets import PriceSheetRepository
from node.storage.repositories.profile_sets import ProfileSetRepository
from node.storage.repositories.ring_seats import RingSeatRepository
from node.storage.repositories.use_cases import UseCaseRepository
from node.timekeeping.keeper import TimeKeeper
from node.trust import TrustStore
from node.wan.administration import Administration
from node.wan.certificates import CertificateKeeper
from node.wan.deliveries import DeliveryServices
from node.wan.enrolment import RingService, coordinator_client
from node.wan.enrolments import Enrolled, Enrolments
from node.wan.firmware import FirmwareServices, FirmwareTaker
from node.wan.tunnel_orders import OrderTaker
from node.wan.wakeup import WakeUpListener
from protocol import pki
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines.masks import Fleet
from protocol.link import LinkContext
from protocol.link.loop_lag import watch_loop
from protocol.link.tls import client_context

log = logging.getLogger(__name__)
_START_S = 0.1  # gateways of so long begin together
_SOCKETS_PER_GATEWAY = 4  # coordinator, head, its successor while it is changed, and a listener


async def run(
    config: NodeConfig, *, ready: Callable[[str], None] | None = None,
    cipher_of: Callable[[StorageKeys], Cipher] = store_cipher,
    subscribe: Callable[[MeteringLog, trio.Nursery], None] | None = None, stop: trio.Event | None = None,
) -> None:  # fmt: skip
    """
    Serve until `stop` is set and the rounds under way are settled, or until cancelled.

    `ready` is called with the monitoring address once every gateway runs that is not refused.
    `cipher_of` is for tests, which look for what another cipher would not hide.  `subscribe` is called with each
    gateway's metering log and a nursery to start subscribers in (`examples/metering_log_subscriber.py`).

    Raises StromkreisError where the node cannot start: no root certificate, no store, no gateway that is enrolled.
    """
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    records = LeaveRecords(config.data_dir)
    node = _Node(config, records.read(), ready, subscribe)
    if node.has_gateways or node.has_leavers:
        await _run(node, config, records, cipher_of, stop)
    if not node.has_gateways and not (stop is not None and stop.is_set()):
        await node.serve_nobody(stop)


async def _run(
    node: _Node, config: NodeConfig, records: LeaveRecords, cipher_of: Callable[[StorageKeys], Cipher],
    stop: trio.Event | None,
) -> None:  # fmt: skip
    """Run a node's gateways until it is to stop, or the last of them has left for good."""
    with ExitStack() as opened:
        keys = opened.enter_context(closing(open_keys(config, node.root)))
        store = await free_store(config, keys, cipher_of(keys), node.registry, node.readiness, stop)
        if store is None:
            return
        opened.callback(store.close)
        keys.forget_commitment_keys()
        departures = Departures(records, keys, store, node.revoked | node.meters, node.is_going, node.has_left)
        node.metrics.leaving(lambda: departures.asked)
        node.restart = None if stop is None else stop.set
        async with coordinator_client(config) as client, store.writing(), trio.open_nursery() as nursery:
            await departures.finish()
            if not node.has_gateways:
                return
            node.address = await nursery.start(
                serve_monitoring, node.registry, config.metrics, lambda: None, node.readiness.checks
            )
            nursery.start_soon(watch_loop, node.metrics.loop_lag)
            store.observe_write = node.metrics.store_write
            if stop is not None:
                nursery.start_soon(_stop_at, stop, node.running, config.drain_s, node.readiness, nursery.cancel_scope)
            await node.serve(nursery, keys, store, client, departures)


class _Node:
    """
    A process from its configuration on: its metrics and whether it does its work, and `running`, its gateways.

    Raises StromkreisError for a root certificate that is none, a meter that cannot be, and too few open files.
    """

    def __init__(
        self, config: NodeConfig, leaves: Mapping[str, Leave], ready: Callable[[str], None] | None,
        subscribe: Callable[[MeteringLog, trio.Nursery], None] | None,
    ) -> None:  # fmt: skip
        self._config = config
        gone = {name for name, each in leaves.items() if each.is_over}
        self.has_leavers = any(each.state is LeaveState.TOLD for each in leaves.values())
        self._gateways = tuple(each for each in config.all_gateways() if each.id not in gone)
        self._profiles = [meter_profiles(each) for each in self._gateways]
        self.meters = dict(zip((each.id for each in self._gateways), self._profiles, strict=True))
        told = {name for name, each in leaves.items() if each.state is LeaveState.TOLD}
        self.revoked = {each.id: meter_profiles(each) for each in config.all_gateways() if each.id in told}
        self._enrolments: Enrolments | None = None
        self._keeper: LogKeeper | None = None
        self._ready = ready
        self._subscribe = subscribe
        self.restart: Callable[[], None] | None = None
        """Ends the node in order, for firmware that a supervisor starts then."""
        self.registry = CollectorRegistry()
        self.metrics = _metrics_of(self.registry, self._profiles)
        self.root = root_certificate(config)
        check_descriptors(len(self._gateways), sum(map(len, self._profiles)))
        self.address = ""
        self.running: list[Gateway] = []
        self._administration: Administration | None = None
        self.readiness = Readiness(len(self._gateways))
        self.metrics.readiness(lambda: self.readiness.counts)
        carried = CarriedAge(time.monotonic)
        self.metrics.carried_age(lambda: carried.oldest_s(self.running))

    @property
    def has_gateways(self) -> bool:
        """Whether some are configured that have not left for good."""
        return bool(self.meters)

    def is_going(self, identity: str) -> None:
        """A gateway is about to be deleted."""
        if self._keeper is not None:
            self._keeper.forget(identity)

    def has_left(self, identity: str) -> None:
        """A gateway has left for good."""
        self.meters.pop(identity, None)
        self.running[:] = [each for each in self.running if each.identity != identity]
        self.readiness.use(self.running)
        self.readiness.expect(len(self.meters))
        self.metrics.gateways(len(self.running))
        if self._enrolments is not None:
            self._enrolments.forget(identity)

    async def serve_nobody(self, stop: trio.Event | None) -> None:
        """All have left: delete what they had in common, and stay: it would be restarted for ever."""
        if others := erase_node(self._config):
            log.error(
                "every gateway of the configuration has left for good, but the keys of %s are here, which it does not"
                " name: nothing that they need is deleted. Name them to run them, or to ask them to leave",
                ", ".join(others),
            )  # fmt: skip
        else:
            log.warning("every gateway of this node has left for good: stop it and remove it")
        self.readiness.waits_for = "every gateway of this node has left for good"
        async with trio.open_nursery() as nursery:
            await nursery.start(
                serve_monitoring, self.registry, self._config.metrics, lambda: None, self.readiness.checks
            )
            await (trio.Event() if stop is None else stop).wait()
            nursery.cancel_scope.cancel()

    async def serve(
        self, nursery: trio.Nursery, keys: KeyDirectory, store: Store, client: httpx.AsyncClient,
        departures: Departures,
    ) -> None:  # fmt: skip
        """Enrol the gateways and run them, and in the nursery what they share; return once all have left for good."""
        config, metrics = self._config, self.metrics
        enrolments = self._enrolments = Enrolments(
            config, self._gateways, keys, BeaconRepository(store), AttendanceRepository(store), time.time
        )
        await nursery.start(enrolments.run)
        first = await enrolments.first()
        names = names_of([config.coordinator, first.service.endpoint])
        nursery.start_soon(watch_names, names, metrics.name_lookup)
        trust = await self._keep_certificates(nursery, enrolments, client)
        timekeeper = None
        if config.time.server is not None:
            timekeeper = time_keeper(config, first.module, metrics)
            await nursery.start(timekeeper.run)  # the gateways shall begin with the right time
        async with LinkContext(max_sockets=64 + _SOCKETS_PER_GATEWAY * len(self._gateways)) as link:
            shared = self._shared(store, link, trust, first.service, timekeeper)
            keeper = self._keeper = LogKeeper(
                shared.metering, [gateway.id for gateway in self._gateways], retention(config.metering), shared.clock,
                retention_of_meters(config.metering, self._gateways, self._profiles),
            )  # fmt: skip
            nursery.start_soon(keeper.run)
            await self._serve_administrator(nursery, client, shared)
            metrics.time_lapse(is_on=config.policy.time_lapse)
            kept = None if timekeeper is None else timekeeper.clock
            make, begun = partial(self._gateway, shared), partial(self._begun, enrolments)
            async with trio.open_nursery() as gateways:
                gateways.start_soon(run_gateways, make, begun, enrolments, config.starts_per_s, kept)
                await departures.run(client, self.running, enrolments.modules)
                gateways.cancel_scope.cancel()
            nursery.cancel_scope.cancel()

    async def _serve_administrator(self, nursery: trio.Nursery, client: httpx.AsyncClient, shared: Shared) -> None:
        """Ask for profiles and orders now and then, and when a wake-up message comes."""
        take_order = None
        if shared.cls is not None and shared.cls.begins:
            taker = OrderTaker(client, self._open_tunnel, shared.clock)
            await nursery.start(taker.run)
            take_order = taker.take
        firmware = self._firmware(client, shared)
        if firmware is not None:
            nursery.start_soon(firmware.run)
        administration = self._administration = Administration(
            client, lambda: [each.profiles for each in self.running], self._config.profile_poll_s, take_order,
            None if firmware is None else firmware.take,
        )  # fmt: skip
        if self._config.wake_up is not None:
            await _listen_for_wakeups(nursery, self._config.wake_up, administration, shared)
        nursery.start_soon(administration.run)

    def _firmware(self, client: httpx.AsyncClient, shared: Shared) -> FirmwareTaker | None:
        """What takes firmware, where a supervisor would start it."""
        config = self._config.firmware
        if config.directory is None or self.restart is None or not is_supervised():
            return None
        return FirmwareTaker(
            client,
            FirmwareServices(
                directory=FirmwareDirectory(config.directory), hardware=config.hardware, version=shared.version,
                publishers=tuple(map(bytes.fromhex, config.publishers)), clock=shared.clock,
                gateways=lambda: self.running, restart=self.restart,
                checks=self.readiness.checks, metrics=self.metrics,
            ),
        )  # fmt: skip

    async def _open_tunnel(self, identity: str, proxy: str, duration_s: int) -> str:
        for each in self.running:
            if each.identity == identity and each.initiator is not None:
                return await each.initiator.begin(proxy, "participant", duration_s)
        return "not_running"

    async def _keep_certificates(
        self, nursery: trio.Nursery, enrolments: Enrolments, client: httpx.AsyncClient
    ) -> TrustStore:
        config, revocations = self._config, pki.RevocationLists()
        trust = TrustStore(self.root, time.time, revocations)
        certificates = CertificateKeeper(
            client, self.root, config.data_dir, trust, revocations, clock=time.time,
            renew_before=timedelta(days=config.security.renew_certificates_days),
            renewed=lambda each: self.metrics.certificates(_certificate_ends(each)),
        )  # fmt: skip
        certificates.load()
        await certificates.fetch_lists()  # renewals may wait, neighbours' certificates may not
        nursery.start_soon(certificates.run, enrolments.modules, config.security.revocation_check_s)
        return trust

    def _shared(
        self, store: Store, link: LinkContext, trust: TrustStore, service: RingService, timekeeper: TimeKeeper | None
    ) -> Shared:
        config, metrics = self._config, self.metrics
        version = importlib.metadata.version("stromkreis")
        tls_context = partial(client_context, config.root_certificate)
        return Shared(
            suite=StandardSuite(), link=link, accounts=AccountRepository(store),
            attendance=AttendanceRepository(store), limit_returns=config.policy.limit_returns,
            bills=BillRepository(store), counters=DurableCounters(CounterRepository(store)),
            pairings=PairingStore(PairingRepository(store), renewal_policy(config.lmn)), metrics=metrics, trust=trust,
            policy=policy_of(config.policy), calendar=calendar_policy(config.policy),
            log_check=log_check(config, store, service.log_key, timekeeper), beacon=BeaconRepository(store),
            list_key=service.list_key, crowd=crowd_policy(config.policy), listen=config.link.listen,
            public_host=config.link.public_host, relay=config.link.mode == "relay",
            billing=billing_rules(config.billing), epoch_over=store.truncate_log,
            backoff=Backoff(max_s=config.lmn.reconnect_s_max), metering=MeteringLogRepository(store),
            logs=GatewayLogRepository(store), profile_sets=ProfileSetRepository(store),
            deliveries=DeliveryServices(
                repository=UseCaseRepository(store), trust=trust, metrics=metrics, tls_context=tls_context
            ),
            version=version, han=han_services(config, self._gateways, store),
            cls=cls_services(self._gateways, store, metrics, trust, tls_context), mdns=mdns_services(self._gateways),
            seats=RingSeatRepository(store), bases=AccountBasisRepository(store),
            contribute_without_profile=config.policy.contribute_without_profile,
            sheets=PriceSheetRepository(store), time=timekeeper,
            clock=time.time if timekeeper is None else timekeeper.clock,
        )  # fmt: skip

    def _gateway(self, shared: Shared, start: ProcessStart) -> Callable[[Enrolled], Gateway]:
        since = replace(shared, start=start, fleet=Fleet(), rings=PublicRings())

        def made(each: Enrolled) -> Gateway:
            gateway = self._gateways[each.place]
            tariff = gateway.tariff
            ours = since if tariff is None else replace(since, billing=replace(since.billing, tariff=tariff))
            return Gateway(
                ours, each.module, gateway.area or self._config.area, each.service.endpoint, each.service.curve_key,
                self._profiles[each.place], self._subscribe,
            )  # fmt: skip

        return made

    def _begun(self, enrolments: Enrolments, made: list[Gateway]) -> None:
        metrics, policy = self.metrics, self._config.policy
        self.running[:] = made
        if self._administration is not None:
            self._administration.wake()  # it has not asked for these yet
        self.readiness.use(self.running)
        self.readiness.waits_for = None
        metrics.gateways(len(self.running))
        metrics.waiting(lambda: sum(each.is_waiting for each in self.running))
        metrics.carrying(lambda: sum(each.is_carrying for each in self.running))
        metrics.discipline(policy.honest_floor, is_returns_limited=policy.limit_returns)
        if enrolments.waiting:
            return
        metrics.certificates(_certificate_ends(enrolments.modules))
        log.info("%d gateways run, monitoring at %s", len(self.running), self.address)
        if self._ready is not None:
            self._ready(self.address)
            self._ready = None


def _metrics_of(registry: CollectorRegistry, profiles: Iterable[Iterable[MeterProfile]]) -> NodeMetrics:
    for each in LMN_METRICS:
        registry.register(each)
    ProcessCollector(registry=registry)
    metrics = NodeMetrics(registry)
    metrics.version(importlib.metadata.version("stromkreis"))
    for meter in chain(*profiles):
        LMN_READINGS.labels(meter.protocol)
    return metrics


async def run_gateways(
    make: Callable[[ProcessStart], Callable[[Enrolled], Gateway]], begun: Callable[[list[Gateway]], None],
    enrolments: Enrolments, starts_per_s: float, kept: Callable[[], float] | None = None,
) -> None:  # fmt: skip
    """
    Serve with a gateway for each that is enrolled, and with new ones whenever their process start is over.

    No more than `starts_per_s` begin in a second, so that thousands do not all connect and ask at once.

    A fork or a machine that went on from a snapshot is a start like any other: the store is read again, the account
    reviewed, and nothing of what was under way goes on.  `kept` is the gateways' clock where a time service keeps it.
    """
    at_once = math.ceil(_START_S * starts_per_s)
    while True:
        start = ProcessStart(kept=kept)

        async def serve(nursery: trio.Nursery, gateway_of: Callable[[Enrolled], Gateway]) -> None:
            gateways: list[Gateway] = []
            made: set[int] = set()
            while True:
                changed = enrolments.changed
                for each in [each for each in enrolments.enrolled if each.place not in made]:
                    made.add(each.place)
                    if len(gateways) % at_once == 0 and gateways:
                        await trio.sleep(at_once / starts_per_s)
                    gateways.append(gateway_of(each))
                    nursery.start_soon(gateways[-1].run)
                begun([each for each in gateways if not each.has_stopped])
                await changed.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, nursery, make(start))
            await start.wait_until_over()
            nursery.cancel_scope.cancel()
        log.warning("the process was forked, or its clock has jumped by over %g s: the gateways start anew", JUMP_S)


async def _stop_at(
    stop: trio.Event, running: Sequence[Gateway], drain_s: float, readiness: Readiness, scope: trio.CancelScope
) -> None:
    await stop.wait()
    readiness.waits_for = "the node is stopping"
    await settled(lambda: running, drain_s)
    scope.cancel()


async def _listen_for_wakeups(
    nursery: trio.Nursery, address: str, administration: Administration, shared: Shared
) -> None:
    host, _, port = address.rpartition(":")
    listener = WakeUpListener(
        administration.administrator_of, lambda _: administration.wake(), shared.clock, shared.metrics.wakeup
    )
    bound = administration.wake_up_port = await nursery.start(listener.serve, host, int(port))
    log.info("wake-up messages are taken at %s:%d", host, bound)


def _certificate_ends(modules: Iterable[GatewaySecurityModule]) -> Iterator[datetime]:
    for module in modules:
        if module.certificate is not None:
            yield x509.load_der_x509_certificate(module.certificate).not_valid_after_utc
