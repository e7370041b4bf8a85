"""From the configuration to what the gateways of a process share for their homes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from node.config import NodeConfig
from node.gateway_config import GatewayConfig
from node.han.accounts import Account, Contract, Role
from node.han.digest import Algorithm
from node.han.facts import HanServices, NetworkFacts
from node.han_config import HanAccountConfig
from node.storage.engine import Store
from node.storage.reader import StoreReader
from node.storage.repositories.han import HanSecretRepository
from protocol.errors import StromkreisError

_ROLES = {"consumer": Role.CONSUMER, "technician": Role.TECHNICIAN}


def han_services(config: NodeConfig, gateways: Sequence[GatewayConfig], store: Store) -> HanServices | None:
    """
    None where no gateway serves its home.

    Raises StromkreisError for a certificate that cannot be read, StoreError for the store.
    """
    serving = [each for each in gateways if each.han.listen is not None]
    if not serving:
        return None
    certificates = {each.id: [_certificate(account) for account in each.han.accounts] for each in serving}
    return HanServices(
        secrets=HanSecretRepository(store), reader=StoreReader(store),
        network=NetworkFacts(
            coordinator=config.coordinator, link=config.link.mode, time_server=config.time.server
        ),
        accounts={
            each.id: tuple(map(_account, [each] * len(each.han.accounts), each.han.accounts, certificates[each.id]))
            for each in serving
        },
        certificates={name: tuple(der for der in ders if der is not None) for name, ders in certificates.items()},
        listen={each.id: each.han.listen for each in serving if each.han.listen is not None},
    )  # fmt: skip


def _certificate(account: HanAccountConfig) -> bytes | None:
    if account.certificate is None:
        return None
    try:
        return x509.load_pem_x509_certificate(account.certificate.read_bytes()).public_bytes(Encoding.DER)
    except (OSError, ValueError) as error:
        raise StromkreisError(
            f"{account.certificate}: expected a certificate in PEM ({type(error).__name__})"
        ) from error


def _account(gateway: GatewayConfig, account: HanAccountConfig, certificate: bytes | None) -> Account:
    role = _ROLES[account.role]
    places = account.meters or range(len(gateway.meters))
    texts = {Algorithm.SHA256: account.ha1_sha256, Algorithm.MD5: account.ha1_md5}
    return Account(
        account.user, role, tuple(f"{gateway.id}/{place}" for place in places) if role is Role.CONSUMER else (),
        (Contract(account.user, ()),) if role is Role.CONSUMER else (),
        frozenset() if certificate is None else frozenset({hashlib.sha256(certificate).hexdigest()}),
        {each: text.get_secret_value().lower() for each, text in texts.items() if text is not None},
        frozenset(account.facades),
    )  # fmt: skip
