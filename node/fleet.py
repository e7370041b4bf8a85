"""
Many gateways in one process: enrolment, shared services, and one task tree with a branch for each gateway.

One gateway in the field and thousands in a load test run this same code; the difference is the length of a list.
"""

from __future__ import annotations

import importlib.metadata
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from random import Random

import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import CollectorRegistry, ProcessCollector

from node.aggregation.beacon import CrowdPolicy
from node.aggregation.bills import BillingRules
from node.aggregation.log_check import LogCheck
from node.aggregation.ring_cache import PublicRings
from node.config import BillingConfig, MeteringLogConfig, MeterReadingConfig, NodeConfig, PolicyConfig
from node.descriptors import check_descriptors
from node.gateway import Gateway, Shared
from node.gateway_config import GatewayConfig
from node.han.configured import han_services
from node.lmn.counters import DurableCounters
from node.lmn.metrics import LMN_METRICS, LMN_READINGS
from node.lmn.pairing import PairingStore, RenewalPolicy
from node.lmn.profiles import MeterProfile, profile_of_url
from node.lmn.runtime import Backoff, check_profiles
from node.metering.log import MeteringLog
from node.metering.retention import LogKeeper, Retention
from node.metrics import NodeMetrics
from node.monitoring import serve_monitoring
from node.process_start import JUMP_S, ProcessStart
from node.process_stop import settled
from node.readiness import Readiness
from node.security.backend import KeyBackend
from node.security.backends import open_backend
from node.security.module import GatewaySecurityModule, KeyDirectory
from node.storage.cipher import Cipher, StorageKeys, store_cipher
from node.storage.engine import Store
from node.storage.errors import StoreHeldError
from node.storage.repositories.accounts import AccountRepository
from node.storage.repositories.attendance import AttendanceRepository
from node.storage.repositories.beacon import BeaconRepository
from node.storage.repositories.bills import BillRepository
from node.storage.repositories.counters import CounterRepository
from node.storage.repositories.enrolment_log import EnrolmentLogRepository
from node.storage.repositories.gateway_logs import GatewayLogRepository
from node.storage.repositories.metering_log import MeteringLogRepository
from node.storage.repositories.pairings import PairingRepository
from node.storage.repositories.price_sheets import PriceSheetRepository
from node.storage.repositories.profile_sets import ProfileSetRepository
from node.storage.repositories.ring_seats import RingSeatRepository
from node.storage.repositories.use_cases import UseCaseRepository
from node.timekeeping.clock import GatewayClock
from node.timekeeping.keeper import TimeKeeper, TimeServer
from node.trust import TrustStore
from node.wan.administration import Administration
from node.wan.certificates import CertificateKeeper
from node.wan.deliveries import DeliveryServices
from node.wan.enrolment import coordinator_client
from node.wan.enrolments import Enrolled, Enrolments
from node.wan.wakeup import WakeUpListener
from protocol import pki
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines.masks import Fleet
from protocol.dcnet.setup.calendar import CalendarPolicy
from protocol.dcnet.setup.epoch import Policy
from protocol.errors import LocalProtocolError, StromkreisError
from protocol.link import LinkContext
from protocol.link.loop_lag import watch_loop
from protocol.link.tls import client_context
from protocol.metering.interval import DAY_S

log = logging.getLogger(__name__)
_STORE_LOOK_S = 1.0
_START_S = 0.1  # gateways of so long begin together
_SOCKETS_PER_GATEWAY = 4  # coordinator, head, its successor while it is changed, and a listener


def meter_profiles(gateway: GatewayConfig) -> list[MeterProfile]:
    """
    The gateway's meters as the LMN runtime wants them (see `profile_of_url`); keys are found by the id in the URL.

    Raises StromkreisError for a meter that cannot be, without repeating a key.
    """
    profiles = []
    for index, url in enumerate(gateway.meters):
        try:
            profiles.append(profile_of_url(url, f"{gateway.id}/{index}", gateway.keys))
        except ValueError as error:
            raise StromkreisError(f"gateway {gateway.id}: meter {index}: {error}") from None
    try:
        check_profiles(profiles)
    except LocalProtocolError as error:
        raise StromkreisError(f"gateway {gateway.id}: {error}") from None
    if unused := sorted(set(gateway.keys) - {profile.meter_id for profile in profiles}):
        raise StromkreisError(f"gateway {gateway.id}: keys of meter {unused[0]}, which no URL names with id=")
    return profiles


def policy_of(config: PolicyConfig) -> Policy:
    """The policy in the unit that goes into digests: parts in a million."""
    epsilon = config.noise_epsilon_max
    return Policy(
        corrupt_ppm=round(config.corrupt * 1_000_000), ring_size_min=config.ring_size_min,
        honest_floor=config.honest_floor,
        epsilon_ppm_max=None if epsilon is None else round(epsilon * 1_000_000), power_w=config.noise_power_w,
        energy_wh=config.noise_energy_wh,
    )  # fmt: skip


def calendar_policy(config: PolicyConfig) -> CalendarPolicy:
    """The rules for the calendar, in seconds."""
    return CalendarPolicy(config.epoch_rounds_min, config.epoch_hours_max * 3600, time_lapse=config.time_lapse)


def crowd_policy(config: PolicyConfig) -> CrowdPolicy:
    """The rules for the members of an epoch."""
    return CrowdPolicy(config.area_size_confirmed, config.reveals_max)


def billing_rules(config: BillingConfig) -> BillingRules:
    """The rules in the units of the store: seconds."""
    return BillingRules(
        span_min_s=config.span_days_min * DAY_S,
        supplier=config.supplier,
        keep_s=config.keep_days * DAY_S,
        tariff=config.tariff,
    )


def renewal_policy(config: MeterReadingConfig) -> RenewalPolicy:
    """The policy with its days as durations; a date begins at midnight UTC."""
    after = config.certificates_issued_after
    return RenewalPolicy(
        timedelta(days=config.certificate_days), timedelta(days=config.renew_certificates_days),
        None if after is None else datetime(after.year, after.month, after.day, tzinfo=UTC),
    )  # fmt: skip


def retention(config: MeteringLogConfig) -> Retention:
    """How long the metering log keeps what, in seconds."""
    return Retention(config.keep_telegrams_s, config.keep_days * DAY_S)


def retention_of_meters(
    config: MeteringLogConfig, gateways: Sequence[GatewayConfig], profiles: Sequence[Sequence[MeterProfile]]
) -> dict[tuple[str, str], Retention]:
    """The same of each meter whose profile says something else, by gateway and meter."""
    return {
        (gateway.id, meter.device): Retention(
            meter.keep_telegrams_s or config.keep_telegrams_s, (meter.keep_days or config.keep_days) * DAY_S
        )
        for gateway, mine in zip(gateways, profiles, strict=True)
        for meter in mine
        if meter.keep_days is not None or meter.keep_telegrams_s is not None
    }


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
    gateways = config.all_gateways()
    profiles = [meter_profiles(each) for each in gateways]
    registry = CollectorRegistry()
    for each in LMN_METRICS:
        registry.register(each)
    ProcessCollector(registry=registry)
    metrics = NodeMetrics(registry)
    metrics.version(importlib.metadata.version("stromkreis"))
    for meter in chain(*profiles):
        LMN_READINGS.labels(meter.protocol)
    try:
        root = x509.load_pem_x509_certificate(config.root_certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise StromkreisError(
            f"{config.root_certificate}: expected the SM-PKI root certificate in PEM ({type(error).__name__})"
        ) from error
    check_descriptors(len(gateways), sum(map(len, profiles)))
    suite = StandardSuite()
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    running: list[Gateway] = []

    readiness = Readiness(len(gateways))
    metrics.readiness(lambda: readiness.counts)
    with ExitStack() as opened:
        keys = opened.enter_context(closing(open_keys(config, root)))
        store = await _free_store(config, keys, cipher_of(keys), registry, readiness, stop)
        if store is None:
            return
        opened.callback(store.close)
        keys.forget_commitment_keys()
        metering, attendance = MeteringLogRepository(store), AttendanceRepository(store)
        async with AsyncExitStack() as stack, store.writing(), trio.open_nursery() as nursery:
            address = await nursery.start(serve_monitoring, registry, config.metrics, lambda: None, readiness.checks)
            nursery.start_soon(watch_loop, metrics.loop_lag)
            if stop is not None:
                nursery.start_soon(_stop_at, stop, running, config.drain_s, readiness, nursery.cancel_scope)
            beacon = BeaconRepository(store)
            enrolments = Enrolments(config, gateways, keys, beacon, attendance, time.time)
            await nursery.start(enrolments.run)
            first = await enrolments.first()
            revocations = pki.RevocationLists()
            trust = TrustStore(root, time.time, revocations)
            client = await stack.enter_async_context(coordinator_client(config))
            certificates = CertificateKeeper(
                client, root, config.data_dir, trust, revocations, clock=time.time,
                renew_before=timedelta(days=config.security.renew_certificates_days),
                renewed=lambda each: metrics.certificates(_certificate_ends(each)),
            )  # fmt: skip
            certificates.load()
            await certificates.fetch_lists()  # renewals may wait, neighbours' certificates may not
            nursery.start_soon(certificates.run, enrolments.modules, config.security.revocation_check_s)
            timekeeper = None
            if config.time.server is not None:
                timekeeper = time_keeper(config, first.module, metrics)
                await nursery.start(timekeeper.run)  # the gateways shall begin with the right time
            async with LinkContext(max_sockets=64 + _SOCKETS_PER_GATEWAY * len(gateways)) as link:
                shared = Shared(
                    suite=suite, link=link, accounts=AccountRepository(store),
                    attendance=attendance, limit_returns=config.policy.limit_returns, bills=BillRepository(store),
                    counters=DurableCounters(CounterRepository(store)),
                    pairings=PairingStore(PairingRepository(store), renewal_policy(config.lmn)), metrics=metrics,
                    trust=trust, policy=policy_of(config.policy), calendar=calendar_policy(config.policy),
                    log_check=_log_check(config, store, first.service.log_key, timekeeper),
                    beacon=beacon, list_key=first.service.list_key, crowd=crowd_policy(config.policy),
                    listen=config.link.listen,
                    public_host=config.link.public_host, relay=config.link.mode == "relay",
                    billing=billing_rules(config.billing), epoch_over=store.truncate_log,
                    backoff=Backoff(max_s=config.lmn.reconnect_s_max), metering=metering,
                    logs=GatewayLogRepository(store), profile_sets=ProfileSetRepository(store),
                    deliveries=DeliveryServices(
                        repository=UseCaseRepository(store), trust=trust, metrics=metrics,
                        tls_context=partial(client_context, config.root_certificate),
                    ),
                    version=importlib.metadata.version("stromkreis"), han=han_services(config, gateways, store),
                    seats=RingSeatRepository(store), sheets=PriceSheetRepository(store), time=timekeeper,
                    clock=time.time if timekeeper is None else timekeeper.clock,
                )  # fmt: skip
                keeper = LogKeeper(
                    metering,
                    [gateway.id for gateway in gateways],
                    retention(config.metering),
                    shared.clock,
                    retention_of_meters(config.metering, gateways, profiles),
                )
                nursery.start_soon(keeper.run)
                administration = Administration(
                    client, lambda: [each.profiles for each in running], config.profile_poll_s
                )
                nursery.start_soon(administration.run)
                if config.wake_up is not None:
                    await _listen_for_wakeups(nursery, config.wake_up, administration, shared)
                metrics.time_lapse(is_on=config.policy.time_lapse)

                def make(start: ProcessStart) -> Callable[[Enrolled], Gateway]:
                    since = replace(shared, start=start, fleet=Fleet(), rings=PublicRings())
                    return lambda each: Gateway(
                        _with_tariff(since, gateways[each.place].tariff), each.module,
                        gateways[each.place].area or config.area, each.service.endpoint, each.service.curve_key,
                        profiles[each.place], subscribe,
                    )  # fmt: skip

                def begun(made: list[Gateway]) -> None:
                    nonlocal ready
                    running[:] = made
                    readiness.use(running)
                    readiness.waits_for = None
                    metrics.gateways(len(running))
                    metrics.waiting(lambda: sum(each.is_waiting for each in running))
                    metrics.carrying(lambda: sum(each.is_carrying for each in running))
                    metrics.discipline(config.policy.honest_floor, is_returns_limited=config.policy.limit_returns)
                    if enrolments.waiting:
                        return
                    metrics.certificates(_certificate_ends(enrolments.modules))
                    log.info("%d gateways run, monitoring at %s", len(running), address)
                    if ready is not None:
                        ready(address)
                        ready = None

                kept = None if timekeeper is None else timekeeper.clock
                await run_gateways(make, begun, enrolments, config.starts_per_s, kept)


async def _stop_at(
    stop: trio.Event, running: Sequence[Gateway], drain_s: float, readiness: Readiness, scope: trio.CancelScope
) -> None:
    await stop.wait()
    readiness.waits_for = "the node is stopping"
    await settled(lambda: running, drain_s)
    scope.cancel()


async def _free_store(
    config: NodeConfig, keys: KeyDirectory, cipher: Cipher, registry: CollectorRegistry, readiness: Readiness,
    stop: trio.Event | None,
) -> Store | None:  # fmt: skip
    """
    The store, once no other process has it: one that was cut off with its machine may live on for minutes.

    None where `stop` is set before.  Monitored meanwhile, so that nobody takes the wait for a hang.  Raises StoreError
    where it cannot be opened.
    """
    open_store = partial(Store, config.store_path, cipher, blinding_key=keys.retired_commitment_key)
    try:
        return open_store()
    except StoreHeldError as error:
        log.warning("waits until the other process ends: %s", error)
    readiness.waits_for = f"{config.store_path}: another process has the store open"
    store = None
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_monitoring, registry, config.metrics, lambda: None, readiness.checks)
        while store is None and not (stop is not None and stop.is_set()):
            with suppress(StoreHeldError):
                store = open_store()
            await trio.sleep(_STORE_LOOK_S if store is None else 0)
        nursery.cancel_scope.cancel()
    readiness.waits_for = "the node is starting"
    return store


async def _listen_for_wakeups(
    nursery: trio.Nursery, address: str, administration: Administration, shared: Shared
) -> None:
    host, _, port = address.rpartition(":")
    listener = WakeUpListener(
        administration.administrator_of, lambda _: administration.wake(), shared.clock, shared.metrics.wakeup
    )
    bound = await nursery.start(listener.serve, host, int(port))
    log.info("wake-up messages are taken at %s:%d", host, bound)


def _log_check(config: NodeConfig, store: Store, log_key: bytes, timekeeper: TimeKeeper | None) -> LogCheck:
    confirmed = config.policy.log_root_confirmed
    return LogCheck(
        EnrolmentLogRepository(store), partial(StandardSuite().verify, log_key),
        time.time if timekeeper is None else timekeeper.clock,
        None if confirmed is None else bytes.fromhex(confirmed),
    )  # fmt: skip


def _with_tariff(shared: Shared, tariff: str | None) -> Shared:
    return shared if tariff is None else replace(shared, billing=replace(shared.billing, tariff=tariff))


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
            while True:
                changed = enrolments.changed
                for each in enrolments.enrolled[len(gateways) :]:
                    if len(gateways) % at_once == 0 and gateways:
                        await trio.sleep(at_once / starts_per_s)
                    gateways.append(gateway_of(each))
                    nursery.start_soon(gateways[-1].run)
                begun(gateways)
                await changed.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, nursery, make(start))
            await start.wait_until_over()
            nursery.cancel_scope.cancel()
        log.warning("the process was forked, or its clock has jumped by over %g s: the gateways start anew", JUMP_S)


def time_keeper(config: NodeConfig, module: GatewaySecurityModule, metrics: NodeMetrics) -> TimeKeeper:
    """
    The process's clock, kept by the time service that the configuration names, asked with one gateway's certificate.

    Raises LocalProtocolError where that gateway has no TLS certificate.
    """
    host, _, port = str(config.time.server).rpartition(":")
    context = client_context(config.root_certificate)
    module.load_tls(context)
    clock = GatewayClock(time.time, time.monotonic)
    metrics.clock(lambda: clock.error_us)
    return TimeKeeper(
        clock, TimeServer(host, int(port), context), config.time.poll_s, module.random_bits, Random(module.identity),
        metrics.time_answer,
    )  # fmt: skip


def open_keys(config: NodeConfig, root: x509.Certificate) -> KeyDirectory:
    """
    The gateways' keys, which lie on the curve of the SM-PKI that certifies them; close them in the end.

    Raises StromkreisError for a root on another curve, or a token that cannot be used.
    """
    public_key = root.public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(public_key.curve, pki.CURVES):
        raise StromkreisError(f"{config.root_certificate}: expected an SM-PKI root on a curve of BSI TR-03116-3")
    return KeyDirectory(config.keys_path, StandardSuite(), backend=key_backend(config), curve=type(public_key.curve))


def key_backend(config: NodeConfig) -> KeyBackend:
    """Files or the token, as the configuration says.  Raises StromkreisError for a token that cannot be used."""
    security = config.security
    pin = None if security.pin is None else security.pin.get_secret_value()
    return open_backend(config.keys_path, security.library, security.token_label, pin)


def _certificate_ends(modules: Iterable[GatewaySecurityModule]) -> Iterator[datetime]:
    for module in modules:
        if module.certificate is not None:
            yield x509.load_der_x509_certificate(module.certificate).not_valid_after_utc
