"""From the configuration to what the gateways of a process share for their controllable systems."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence

from node.cls.tunnels import ClsServices, Trust
from node.gateway_config import GatewayConfig
from node.metrics import NodeMetrics
from node.storage.engine import Store
from node.storage.repositories.han import HanSecretRepository


def cls_services(
    gateways: Sequence[GatewayConfig], store: Store, metrics: NodeMetrics, trust: Trust,
    tls_context: Callable[[], ssl.SSLContext],
) -> ClsServices | None:  # fmt: skip
    """None where no gateway serves controllable systems."""
    listen = {each.id: each.cls.listen for each in gateways if each.cls.listen is not None}
    begins = frozenset(each.id for each in gateways if each.cls.begins)
    if not listen and not begins:
        return None
    return ClsServices(
        secrets=HanSecretRepository(store), metrics=metrics, trust=trust, tls_context=tls_context, listen=listen,
        begins=begins,
    )  # fmt: skip
