"""
Enrolment: from a token to a certificate, once in a gateway's life.

Over HTTPS that leads to the SM-PKI root this node trusts; what comes back is checked (our key, our id, a chain to the
root) before it is kept.  The coordinator's endpoint and CURVE key are kept beside the keys, so that a restarted node
needs nobody's help to call.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import httpx
import trio
from cryptography import x509

from node.config import GatewayConfig, NodeConfig
from node.security.module import GatewaySecurityModule
from node.wan.certificates import MALFORMED, package_body, read_triple, refusal_text
from protocol.errors import RemoteProtocolError, StromkreisError
from protocol.link.tls import client_context

log = logging.getLogger(__name__)
_PATIENCE_S = 120.0  # the coordinator may be starting at the same moment as we
_TIMEOUT_S = 30.0
_UNAVAILABLE = 503  # the coordinator's disk is full, for example: it goes on once there is room


def coordinator_client(config: NodeConfig) -> httpx.AsyncClient:
    """A client of the coordinator's HTTPS interface that trusts the SM-PKI root alone."""
    verify = client_context(config.root_certificate)
    return httpx.AsyncClient(base_url=config.coordinator, timeout=_TIMEOUT_S, verify=verify)


class Enroller:
    """Enrols the gateways of one node over one kept-alive connection."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._root = x509.load_pem_x509_certificate(config.root_certificate.read_bytes())
        self._known = config.data_dir / "coordinator.json"
        self._client = coordinator_client(config)

    async def __aenter__(self) -> Enroller:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def enrol(self, module: GatewaySecurityModule, gateway: GatewayConfig) -> tuple[str, bytes]:
        """
        The coordinator's endpoint and CURVE key; enrols first where the gateway has no certificate yet.

        Raises StromkreisError that says what stands in the way.
        """
        if module.certificate is not None:
            try:
                stored = json.loads(self._known.read_text())
                return stored["endpoint"], bytes.fromhex(stored["curve_key"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise StromkreisError(
                    f"{self._known}: no endpoint and key of the coordinator ({type(error).__name__}); copy the file"
                    " from another node of this coordinator, or from the backup"
                ) from error
        if gateway.token is None:
            raise StromkreisError(
                f"gateway {gateway.id} is not enrolled and has no token: ask the administrator for one and give it as"
                " node.token or STROMKREIS_NODE__TOKEN"
            )
        answer = await self._ask(module, gateway, gateway.token.get_secret_value())
        try:
            certificates, above = read_triple(answer, gateway.id, self._root, datetime.now(UTC))
            endpoint, curve_key = answer["endpoint"], bytes.fromhex(answer["coordinator_curve_key"])
            _write(self._known, json.dumps({"endpoint": endpoint, "curve_key": curve_key.hex()}))
            module.install(certificates, above)
        except (RemoteProtocolError, IndexError, *MALFORMED) as error:
            raise StromkreisError(f"gateway {gateway.id}: the enrolment's answer does not hold: {error}") from error
        return endpoint, curve_key

    async def _ask(self, module: GatewaySecurityModule, gateway: GatewayConfig, token: str) -> dict[str, str]:
        body = await trio.to_thread.run_sync(package_body, module)
        body |= {
            "token": token, "gateway": gateway.id, "area": gateway.area or self._config.area,
            "curve_public_key": module.curve.public.hex(),
        }  # fmt: skip
        give_up_s = trio.current_time() + _PATIENCE_S
        pause_s = 0.2
        while True:
            try:
                response = await self._client.post("/api/v1/enrol", json=body)
            except httpx.TransportError as error:
                trouble = f"{type(error).__name__}: {error}; expected its HTTPS address in node.coordinator"
            else:
                if response.status_code == 201:
                    answer: dict[str, str] = response.json()
                    return answer
                if response.status_code != _UNAVAILABLE:
                    told = f"status {response.status_code}: {refusal_text(response)}"
                    raise StromkreisError(f"gateway {gateway.id}: enrolment refused with {told}")
                trouble = f"its database fails, see its log; status {_UNAVAILABLE}"
            if trio.current_time() > give_up_s:
                raise StromkreisError(
                    f"{self._config.coordinator}: the coordinator cannot be reached for enrolment ({trouble})"
                )
            await trio.sleep(pause_s)
            pause_s = min(5.0, 2 * pause_s)


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)
