"""
The coordinator as a process: opens its files and sockets, puts the parts of its role together, serves until cancelled.

One process does all of it unless `role` says otherwise; gateway administrator, market participant and ring service then
are three processes that meet in the database.  Each opens the keys of its role and no other: the sub-CA's the
administrator, the tariffs' the market participant, the CURVE key the ring service.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import trio
from cryptography import x509
from fastapi import FastAPI
from nacl.signing import SigningKey
from prometheus_client import CollectorRegistry, ProcessCollector

from coordinator.config import CoordinatorConfig, Role
from coordinator.emp.billing import Billing
from coordinator.emp.billing_service import BillingService
from coordinator.emp.participant_totals import ParticipantTotals
from coordinator.events import Event, StoreFailed
from coordinator.gwa.ca import (
    ROOT_FILE,
    SUB_CA_FILE,
    TLS_CHAIN_FILE,
    TLS_KEY_FILE,
    CertificateAuthority,
)
from coordinator.gwa.declared_tokens import declare
from coordinator.gwa.enrolment import Directory, Enrolment
from coordinator.gwa.log_writer import LOG_FILE, LOG_KEY_FILE, LogWriter
from coordinator.gwa.participants import (
    TariffSigner,
    administrator_keys,
    participant_keys,
    renew_web_certificate,
)
from coordinator.gwa.pki_setup import web_hosts
from coordinator.gwa.profiles import ProfileRollout
from coordinator.gwa.reconcile import reconcile
from coordinator.gwa.revocation import RevocationPublisher
from coordinator.gwa.time_service import TimeService, kernel_state, vouched_state
from coordinator.gwa.tunnel_orders import TunnelOrders
from coordinator.metrics import CoordinatorMetrics
from coordinator.ring_service import become
from coordinator.service import Coordinator
from coordinator.storage.irrevocable import IrrevocableLog
from coordinator.storage.store import Store
from coordinator.watchdog import watch_over_us
from coordinator.web.app import make_app
from coordinator.web.delivery_servers import DeliveryServers
from coordinator.web.participant_totals import serve_totals
from coordinator.web.serve import serve as serve_web
from coordinator.web.tunnel_orders import ORDER_PATH, make_order_app
from protocol import pki
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.group import Edwards25519
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.errors import RemoteProtocolError, StromkreisError
from protocol.link import Keypair, LinkContext, Listener
from protocol.link.entropy import SystemEntropy
from protocol.link.loop_lag import watch_loop
from protocol.link.tls import server_context
from protocol.log_limit import LogLimiter
from protocol.profiles.template import ProfileTemplate

log = logging.getLogger(__name__)
OPERATOR_TOKEN_FILE = "operator.token"  # noqa: S105 - a file's name
CURVE_KEY_FILE = "curve.json"
LIST_KEY_FILE = "list.json"
_LOG_LINE_S = 10.0
_SOCKETS = 64  # one listener; every gateway is a connection of it, not a socket


async def run(config: CoordinatorConfig, *, ready: Callable[[list[str]], None] | None = None) -> None:
    """
    Serve until cancelled; `ready` gets the web addresses once the process does what its role is for.

    Raises StromkreisError where it cannot start: damaged PKI, address taken, files of its role absent.
    """
    role, now = config.role, datetime.now(UTC)
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    metrics = CoordinatorMetrics(registry)
    metrics.version(importlib.metadata.version("stromkreis"))
    async with AsyncExitStack() as opened:
        store = Store(config.database_url)
        opened.callback(store.close)
        store.database.observe_write = metrics.store_write
        irrevocable = IrrevocableLog(config.irrevocable_path)
        ring_service = None
        if role.does(Role.RINGS):  # before anything else: a process that stands by makes and changes nothing
            ring_service = await become(opened, config, store, metrics, irrevocable.read().reached)
            now = datetime.now(UTC)
        authority = _authority(config, now) if role.does(Role.GWA) else None
        if authority is not None:
            _keep_certificates(config.pki_path, authority, now, metrics)
        chain = _PublicChain(config)
        chain.count_days(metrics)
        # The administrator issues its certificate, the market participant signs with it.
        signer = None if role is Role.RINGS else TariffSigner(config.pki_path, authority, now)
        coordinator, listener = None, None
        curve_key, endpoint = b"", config.public_endpoint or config.listen
        if authority is not None:
            declare(Directory(store.gateways, irrevocable), config.declared_tokens, now)
            reconcile(store.gateways, irrevocable.read())  # after: it knows of spent uses that the database has lost
        if ring_service is not None:
            keys = curve_keys(config.keys_path / CURVE_KEY_FILE)
            list_keys = signing_keys(config.keys_path / LIST_KEY_FILE)
            coordinator = Coordinator(
                config, store.fenced(ring_service.lease.fence), [pki.to_der(chain.sub_ca)], metrics, list_keys.secret,
                irrevocable, ring_service.numbers, ring_service.state,
            )  # fmt: skip
            listener = await _listen(opened, config, keys, coordinator)
            curve_key, endpoint = keys.public, config.public_endpoint or listener.endpoint
        enrolment = billing_service = profiles = orders = order_app = log_writer = lists = None
        if authority is not None:
            profiles = ProfileRollout(
                store.gateways, store.certificates, store.profile_sets,
                administrator_keys(config.pki_path, authority, now), authority.sub_ca, SystemEntropy(),
                None if config.initial_profiles is None else _template(config.initial_profiles),
            )  # fmt: skip
            log_writer, log_key = _log_writer(config, store, metrics)
            opened.callback(log_writer.close)
            publisher = RevocationPublisher(config.pki_path, authority, store.certificates)
            lists = publisher.lists
            if config.web.participants is not None:
                orders = TunnelOrders(
                    profiles, store.audit, chain.root, chain.sub_ca, publisher.lists, partial(datetime.now, UTC),
                    config.web.proxies,
                )  # fmt: skip
                order_app = make_order_app(orders, metrics, lambda: publisher.bundle(datetime.now(UTC)))
            enrolment = Enrolment(
                store.gateways, authority, publisher,
                coordinator_curve_key=curve_key or _curve_public_key(config), endpoint=endpoint,
                endpoints=config.endpoints, list_key=_list_public_key(config), log_key=log_key,
                needs_seal=config.quality_seal == "required", irrevocable=irrevocable, issued=log_writer.wake,
            )  # fmt: skip
        operator_token = "" if role is Role.RINGS else _operator_token(config.data_dir / OPERATOR_TOKEN_FILE)
        if signer is not None and role.does(Role.EMP):
            wake = None if coordinator is None else coordinator.bills.wake
            billing_service = BillingService(Billing(store, Pedersen(Edwards25519())), signer, metrics, made=wake)
        delivery_servers = DeliveryServers(config, store, authority, metrics, now)
        source = None if coordinator is None else coordinator.status_feed
        app = make_app(
            store,
            source,
            metrics,
            role=role,
            enrolment=enrolment,
            billing_service=billing_service,
            profiles=profiles,
            orders=orders,
            inbox=delivery_servers.inbox,
            operator_token=operator_token,
            oidc=config.oidc,
            time_lapse=config.epoch.period_s != config.epoch.interval_s,
            proxies=config.web.proxies,
            has_participants=config.web.totals is not None,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_loop, metrics.loop_lag)
            if config.standby:  # who takes over wants our port
                await nursery.start(watch_over_us)
            web = partial(
                serve_web, app, config.web.listen, certificate=chain.web,
                private_key=config.web.private_key or config.pki_path / TLS_KEY_FILE,
            )  # fmt: skip
            addresses = await nursery.start(web)
            calls = f"gateways call at {endpoint}, " if coordinator is not None else ""
            log.info("role %s: %sweb at %s", role, calls, ", ".join(addresses))
            if config.time.listen is not None and role.does(Role.GWA):
                await _serve_time(nursery, config, chain, metrics)
            if order_app is not None:
                await _serve_orders(nursery, config, chain, order_app)
            if config.web.totals is not None and role.does(Role.EMP):
                totals = ParticipantTotals(
                    store, config.recipients, chain.root, chain.sub_ca, lists, partial(datetime.now, UTC)
                )
                await serve_totals(nursery, config, totals, metrics)
            await delivery_servers.start(nursery)
            if ready is not None:
                ready(addresses)
            if log_writer is not None:
                nursery.start_soon(log_writer.run)
            if ring_service is not None:
                nursery.start_soon(ring_service.watch)
            if coordinator is not None and listener is not None:
                await coordinator.serve(listener)
            await trio.sleep_forever()


def _template(path: Path) -> ProfileTemplate:
    """Raises StromkreisError for a file that makes no profile sets."""
    try:
        return ProfileTemplate(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RemoteProtocolError) as error:
        raise StromkreisError(
            f"[coordinator] initial_profiles = {str(path)!r}: expected a profile set with {{gateway}} in it, see"
            f" `stromkreis profile schema`: {error}"
        ) from error


async def _serve_time(
    nursery: trio.Nursery, config: CoordinatorConfig, chain: _PublicChain, metrics: CoordinatorMetrics
) -> None:
    """Start the time service.  Raises StromkreisError where it cannot listen."""
    host, _, port = str(config.time.listen).rpartition(":")
    key = config.web.private_key or config.pki_path / TLS_KEY_FILE
    context = server_context(chain.web, key, client_root=config.pki_path / ROOT_FILE)
    service = TimeService(kernel_state if config.time.source == "kernel" else vouched_state, metrics.time_request)
    try:
        bound = await nursery.start(service.serve, host, int(port), context)
    except OSError as error:
        raise StromkreisError(
            f"[coordinator.time] listen = {config.time.listen!r}: {error.strerror or error}"
        ) from error
    log.info("time service at %s:%d", host, bound)


async def _serve_orders(nursery: trio.Nursery, config: CoordinatorConfig, chain: _PublicChain, app: FastAPI) -> None:
    """Serve market participants.  Raises StromkreisError where it cannot listen."""
    (bound,) = await nursery.start(
        partial(
            serve_web, app, [str(config.web.participants)], certificate=chain.web,
            private_key=config.web.private_key or config.pki_path / TLS_KEY_FILE,
            client_root=config.pki_path / ROOT_FILE,
        )
    )  # fmt: skip
    log.info("market participants order tunnels at %s%s", bound, ORDER_PATH)


def _keep_certificates(
    directory: Path, authority: CertificateAuthority, now: datetime, metrics: CoordinatorMetrics
) -> None:
    """Renew what the sub-CA certifies beside gateways, where it is due, and show when it ends."""
    renew_web_certificate(directory, authority, now)
    for name, make in (("administrator", administrator_keys), ("participant", participant_keys)):
        metrics.certificate(name, make(directory, authority, now).signature.certificate.not_valid_after_utc)


async def _listen(
    opened: AsyncExitStack, config: CoordinatorConfig, keys: Keypair, coordinator: Coordinator
) -> Listener:
    link = await opened.enter_async_context(LinkContext(max_sockets=_SOCKETS, io_threads=config.io_threads))
    address = config.listen.replace(":0", ":*")
    return await opened.enter_async_context(link.listen(address, keys, coordinator.admission.authorise))


class _PublicChain:
    """The certificates that every role needs, without a key."""

    def __init__(self, config: CoordinatorConfig) -> None:
        self._config = config
        self.root = _certificate(config.pki_path / ROOT_FILE)
        self.sub_ca = _certificate(config.pki_path / SUB_CA_FILE)
        self.web = config.web.certificate or config.pki_path / TLS_CHAIN_FILE

    def count_days(self, metrics: CoordinatorMetrics) -> None:
        """Show when they end."""
        metrics.certificate("root", self.root.not_valid_after_utc)
        metrics.certificate("sub_ca", self.sub_ca.not_valid_after_utc)
        if self.web.exists():  # without an https address there need be none
            metrics.certificate("web", _certificate(self.web).not_valid_after_utc)


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except FileNotFoundError as error:
        raise StromkreisError(
            f"{path}: no such file; expected the SM-PKI that the process with role gwa (or all) makes: start that one"
            " first, or copy its certificates here"
        ) from error
    except ValueError as error:
        raise StromkreisError(f"{path}: expected certificates in PEM, the server's own first") from error


def _authority(config: CoordinatorConfig, now: datetime) -> CertificateAuthority:
    if (config.pki_path / ROOT_FILE).exists():
        return CertificateAuthority.load(config.pki_path)
    log.info("no SM-PKI in %s: made a demo one", config.pki_path)
    return CertificateAuthority.create(config.pki_path, now, hosts=web_hosts(config))


def curve_keys(path: Path) -> Keypair:
    """The ring service's CURVE keys, made where there are none.  Raises StromkreisError where the file is damaged."""
    return _key_pair(path, "CURVE", Keypair.generate)


def signing_keys(path: Path) -> Keypair:
    """The Ed25519 keys of epochs' lists, made where there are none.  Raises StromkreisError as `curve_keys` does."""

    def generate() -> Keypair:
        key = SigningKey.generate()
        return Keypair(bytes(key.verify_key), bytes(key))

    return _key_pair(path, "Ed25519", generate)


def make_keys(config: CoordinatorConfig) -> list[str]:
    """
    Make the ring service's keys and the enrolment log's where they are not there yet; the names of the files made.

    Raises StromkreisError where one is damaged, OSError where one cannot be written.
    """
    made = []
    for path, keys in (
        (config.keys_path / CURVE_KEY_FILE, curve_keys),
        (config.keys_path / LIST_KEY_FILE, signing_keys),
        (config.log_key_path / LOG_KEY_FILE, signing_keys),
    ):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            made.append(path.name)
        keys(path)
    return made


def _key_pair(path: Path, kind: str, generate: Callable[[], Keypair]) -> Keypair:
    if path.exists():
        try:
            stored = json.loads(path.read_text())
            return Keypair(bytes.fromhex(stored["public"]), bytes.fromhex(stored["secret"]))
        except (ValueError, KeyError, TypeError) as error:
            raise StromkreisError(
                f"{path}: no {kind} key pair; put it back from the backup. Without one move it away: another is made,"
                " and each node's coordinator.json wants its public part"
            ) from error
    keys = generate()
    _write_secret(path, json.dumps({"public": keys.public.hex(), "secret": keys.secret.hex()}))
    return keys


def _curve_public_key(config: CoordinatorConfig) -> bytes:
    """The ring service's CURVE public key, which gateways get at enrolment."""
    if config.ring_curve_key is not None:
        return bytes.fromhex(config.ring_curve_key)
    return curve_keys(config.keys_path / CURVE_KEY_FILE).public


def _list_public_key(config: CoordinatorConfig) -> bytes:
    """The Ed25519 key that gateways pin at enrolment: epochs' lists are signed with it."""
    if config.ring_list_key is not None:
        return bytes.fromhex(config.ring_list_key)
    return signing_keys(config.keys_path / LIST_KEY_FILE).public


def _log_writer(config: CoordinatorConfig, store: Store, metrics: CoordinatorMetrics) -> tuple[LogWriter, bytes]:
    """The writer of the enrolment log, and the public key by which gateways know its tree heads."""
    directory = config.log_path
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    keys, suite, lines = (
        signing_keys(config.log_key_path / LOG_KEY_FILE),
        StandardSuite(),
        LogLimiter(_LOG_LINE_S, time.monotonic),
    )
    sign = partial(suite.sign, suite.signing_key(keys.secret))

    def on_event(event: Event) -> None:
        if isinstance(event, StoreFailed):
            metrics.peer_error("store_error")
            if lines.is_due(event.consequence):
                log.error("%s: %s", event.consequence, event.fault)

    writer = LogWriter(store.enrolment_log, directory / LOG_FILE, sign, time.time, on_event, metrics.log_head)
    try:
        writer.enter_all()
    except StromkreisError:
        writer.close()
        raise
    return writer, keys.public


def _operator_token(path: Path) -> str:
    """Shows an administrator at the REST interface, before there is an account; whoever may read the file is one."""
    if not path.exists():
        _write_secret(path, f"stk_op_{secrets.token_urlsafe(32)}\n")
    return path.read_text().strip()


def _write_secret(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
