"""The coordinator as a process: opens its files and sockets, puts the parts together, serves until cancelled."""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import trio
from cryptography import x509
from prometheus_client import CollectorRegistry, ProcessCollector

from coordinator.config import CoordinatorConfig
from coordinator.emp.billing import Billing
from coordinator.emp.billing_service import BillingService
from coordinator.gwa.ca import ROOT_FILE, TLS_CHAIN_FILE, TLS_KEY_FILE, CertificateAuthority, TariffSigner
from coordinator.gwa.enrolment import Enrolment
from coordinator.metrics import CoordinatorMetrics
from coordinator.service import Coordinator
from coordinator.storage.store import Store
from coordinator.web.app import make_app
from coordinator.web.serve import serve as serve_web
from protocol import pki
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.errors import StromkreisError
from protocol.link import Keypair, LinkContext

log = logging.getLogger(__name__)
OPERATOR_TOKEN_FILE = "operator.token"  # noqa: S105 - a file's name
_SOCKETS = 64  # one listener; every gateway is a connection of it, not a socket


async def run(config: CoordinatorConfig, *, ready: Callable[[list[str]], None] | None = None) -> None:
    """
    Serve until cancelled; `ready` gets the web addresses once gateways can enrol and call.

    Raises StromkreisError where it cannot start: damaged PKI, address taken.
    """
    now = datetime.now(UTC)
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = _authority(config, now)
    keys = _curve_keys(config.data_dir / "curve.json")
    operator_token = _operator_token(config.data_dir / OPERATOR_TOKEN_FILE)
    store = Store(config.database_url)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    metrics = CoordinatorMetrics(registry)
    suite = StandardSuite()
    intermediates = [pki.to_der(authority.sub_ca)]
    desk = BillingService(
        Billing(store, Pedersen(suite.group)), TariffSigner(config.pki_path, authority, now), intermediates, metrics,
        keep_s=config.commitments_keep_days * 86_400,
    )  # fmt: skip
    coordinator = Coordinator(
        config,
        suite,
        config.epoch.aggregate_schema,
        store,
        intermediates,
        metrics,
        desk,
    )
    try:
        async with (
            LinkContext(max_sockets=_SOCKETS, io_threads=config.io_threads) as link,
            link.listen(config.listen.replace(":0", ":*"), keys, coordinator.admission.authorise) as listener,
            trio.open_nursery() as nursery,
        ):
            endpoint = config.public_endpoint or listener.endpoint
            certificate = config.web.certificate or config.pki_path / TLS_CHAIN_FILE
            _tell_certificates(metrics, authority, certificate)
            enrolment = Enrolment(store.gateways, authority, coordinator_curve_key=keys.public, endpoint=endpoint)
            app = make_app(
                store, coordinator.status_feed, metrics, enrolment=enrolment, desk=desk, operator_token=operator_token
            )
            web = partial(
                serve_web,
                app,
                config.web.listen,
                certificate=certificate,
                private_key=config.web.private_key or config.pki_path / TLS_KEY_FILE,
            )
            addresses = await nursery.start(web)
            log.info("gateways call at %s, web at %s", endpoint, ", ".join(addresses))
            if ready is not None:
                ready(addresses)
            await coordinator.serve(listener)
    finally:
        store.close()


def _tell_certificates(metrics: CoordinatorMetrics, authority: CertificateAuthority, web: Path) -> None:
    metrics.certificate("root", authority.root.not_valid_after_utc)
    metrics.certificate("sub_ca", authority.sub_ca.not_valid_after_utc)
    if web.exists():  # without an https address there need be none
        try:
            (leaf, *_) = x509.load_pem_x509_certificates(web.read_bytes())
        except ValueError as error:
            raise StromkreisError(f"{web}: expected the web server's certificates in PEM, its own first") from error
        metrics.certificate("web", leaf.not_valid_after_utc)


def _authority(config: CoordinatorConfig, now: datetime) -> CertificateAuthority:
    if (config.pki_path / ROOT_FILE).exists():
        return CertificateAuthority.load(config.pki_path)
    hosts = {"localhost", "127.0.0.1"}
    for address in (*config.web.listen, *([config.web.public_url] if config.web.public_url else [])):
        host = urlsplit(address).hostname
        if host and host not in {"0.0.0.0", "::"}:  # noqa: S104 - a name to leave out, not an address to bind
            hosts.add(host)
    log.info("no SM-PKI in %s: made a demo one", config.pki_path)
    return CertificateAuthority.create(config.pki_path, now, hosts=sorted(hosts))


def _curve_keys(path: Path) -> Keypair:
    if path.exists():
        try:
            stored = json.loads(path.read_text())
            return Keypair(bytes.fromhex(stored["public"]), bytes.fromhex(stored["secret"]))
        except (ValueError, KeyError, TypeError) as error:
            raise StromkreisError(
                f"{path}: no CURVE key pair; put it back from the backup. Without one move it away: another is made,"
                " and each node's coordinator.json wants its public part"
            ) from error
    keys = Keypair.generate()
    _write_secret(path, json.dumps({"public": keys.public.hex(), "secret": keys.secret.hex()}))
    return keys


def _operator_token(path: Path) -> str:
    """What the operator's commands show at the REST interface; whoever may read the file is the operator."""
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
