"""The web services for deliveries put together: keys, receivers and servers of a process's role."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import trio
from cryptography import x509

from coordinator.config import CoordinatorConfig, Role
from coordinator.emp.inbox import DeliveryInbox
from coordinator.gwa.ca import ROOT_FILE, SUB_CA_FILE, CertificateAuthority
from coordinator.gwa.participants import administrator_keys, certified_key
from coordinator.gwa.relay import DeliveryRelay
from coordinator.metrics import CoordinatorMetrics
from coordinator.storage.store import Store
from coordinator.web.deliveries import DELIVERY_PATH, GatewayDirectory, Receiver, make_delivery_app
from coordinator.web.serve import serve
from protocol import pki
from protocol.errors import StromkreisError

log = logging.getLogger(__name__)
INBOX_STEM = "emt"
RELAY_STEM = "gwa"


class DeliveryServers:
    """The inbox, in a process with role emp and an address for it; the administrator's relay, with role gwa."""

    def __init__(
        self, config: CoordinatorConfig, store: Store, authority: CertificateAuthority | None,
        metrics: CoordinatorMetrics, now: datetime,
    ) -> None:  # fmt: skip
        """Raises StromkreisError where keys or certificates of the role are not there."""
        self._config = config
        self._metrics = metrics
        pki_path, addresses = config.pki_path, config.deliveries
        self._directory = GatewayDirectory(
            store.gateways, store.certificates, _certificate(config, ROOT_FILE), _certificate(config, SUB_CA_FILE)
        )
        self.inbox: DeliveryInbox | None = None
        self._relay: DeliveryRelay | None = None
        if addresses.inbox is not None and config.role.does(Role.EMP):
            certified_key(pki_path, f"{INBOX_STEM}-tls", authority, pki.Role.PARTICIPANT_TLS, now)
            key = certified_key(pki_path, f"{INBOX_STEM}-encryption", authority, pki.Role.PARTICIPANT_ENCRYPTION, now)
            self.inbox = DeliveryInbox(
                store.deliveries, key, _certificate(config, "gwa-signature.pem"), self._directory.signers_of,
                metrics.delivery,
            )  # fmt: skip
        if addresses.relay is not None and authority is not None:
            key = administrator_keys(pki_path, authority, now).signature
            self._relay = DeliveryRelay(store.deliveries, key, _certificate(config, "emt-encryption.pem"))

    async def start(self, nursery: trio.Nursery) -> None:
        """Listen.  Raises StromkreisError where an address is taken."""
        addresses = self._config.deliveries
        if self.inbox is not None and addresses.inbox is not None:
            await self._serve(nursery, addresses.inbox, INBOX_STEM, self.inbox)
            nursery.start_soon(self.inbox.run)
        if self._relay is not None and addresses.relay is not None:
            await self._serve(nursery, addresses.relay, RELAY_STEM, self._relay)

    async def _serve(self, nursery: trio.Nursery, address: str, stem: str, receiver: Receiver) -> None:
        pki_path, clock = self._config.pki_path, _now
        app = make_delivery_app(receiver, self._directory, self._metrics, clock)
        (bound,) = await nursery.start(
            partial(
                serve, app, [address], certificate=pki_path / f"{stem}-tls.pem",
                private_key=pki_path / f"{stem}-tls.key", client_root=pki_path / ROOT_FILE,
            )
        )  # fmt: skip
        log.info("deliveries (%s) at %s%s", stem, bound, DELIVERY_PATH)


_now: Callable[[], datetime] = partial(datetime.now, UTC)


def _certificate(config: CoordinatorConfig, name: str) -> x509.Certificate:
    path = config.pki_path / name
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise StromkreisError(
            f"{path}: expected a certificate in PEM ({type(error).__name__}); the process with role gwa (or all) makes"
            " it at its start"
        ) from error
