"""
Enrolment: from a token to a certificate, once in a gateway's life.

Over HTTPS that leads to the SM-PKI root this node trusts; what comes back is checked (our key, our id, a chain to the
root) before it is kept.  The coordinator's endpoint and keys are kept beside ours, so that a restarted node needs
nobody's help to call, and so that the key of epochs' lists is pinned: another one that comes later is not believed.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import httpx
import trio
from cryptography import x509

from node.config import NodeConfig
from node.gateway_config import GatewayConfig
from node.security.module import GatewaySecurityModule
from node.wan.bounded_http import ask
from node.wan.certificates import MALFORMED, package_body, read_triple, refusal_text
from protocol.errors import RemoteProtocolError, StromkreisError
from protocol.link.tls import client_context

log = logging.getLogger(__name__)
_PATIENCE_S = 120.0  # the coordinator may be starting at the same moment as we
_TIMEOUT_S = 30.0
_KEY_SIZE = 32
_MAY_PASS = ("duplicate_gateway:", "token_")  # the id may be released, another token be put into token_file
_UNAVAILABLE = 503  # the coordinator's disk is full, for example: it goes on once there is room


class CoordinatorAwayError(StromkreisError):
    """Nobody answered, or nobody could write: whether the gateway may be enrolled is not known yet."""


class EnrolmentRefusedError(StromkreisError):
    """The coordinator refuses; `may_pass` where the operator can change that without this node."""

    def __init__(self, text: str, *, may_pass: bool) -> None:
        super().__init__(text)
        self.may_pass = may_pass


def coordinator_client(config: NodeConfig) -> httpx.AsyncClient:
    """A client of the coordinator's HTTPS interface that trusts the SM-PKI root alone."""
    verify = client_context(config.root_certificate)
    return httpx.AsyncClient(base_url=config.coordinator, timeout=_TIMEOUT_S, verify=verify)


class RingService(NamedTuple):
    """How a node reaches the coordinator, and the keys that it pinned: CURVE, Ed25519 of epochs' lists and the log."""

    endpoint: str
    curve_key: bytes
    list_key: bytes
    log_key: bytes


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

    async def enrol(self, module: GatewaySecurityModule, gateway: GatewayConfig) -> RingService:
        """
        The coordinator's endpoint and keys; enrols first where the gateway has no certificate yet.

        Raises StromkreisError that says what stands in the way, CoordinatorAwayError for what may pass.
        """
        if module.certificate is not None:
            return await self._stored()
        answer = await self._ask(module, gateway, self._token(gateway))
        try:
            certificates, above = read_triple(answer, gateway.id, self._root, datetime.now(UTC))
            service = _service_of(answer)
            self._keep(service)
            module.install(certificates, above)
        except (RemoteProtocolError, IndexError, *MALFORMED) as error:
            raise StromkreisError(f"gateway {gateway.id}: the enrolment's answer does not hold: {error}") from error
        return service

    def _token(self, gateway: GatewayConfig) -> str:
        if gateway.token is not None:
            return gateway.token.get_secret_value()
        file = self._config.token_file
        if file is None:
            raise StromkreisError(
                f"gateway {gateway.id} is not enrolled and has no token: ask the administrator for one and give it as"
                " node.token, node.token_file or STROMKREIS_NODE__TOKEN"
            )
        try:
            return file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CoordinatorAwayError(
                f"{file}: no token yet ({type(error).__name__}); expected the enrolment token in node.token_file"
            ) from None

    async def _stored(self) -> RingService:
        try:
            stored = json.loads(self._known.read_text())
            endpoint, curve_key = stored["endpoint"], bytes.fromhex(stored["curve_key"])
            list_key = bytes.fromhex(stored["list_key"]) if "list_key" in stored else None
            if list_key is not None and "log_key" in stored:
                return RingService(endpoint, curve_key, list_key, bytes.fromhex(stored["log_key"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StromkreisError(
                f"{self._known}: no endpoint and keys of the coordinator ({type(error).__name__}); copy the file"
                " from another node of this coordinator, or from the backup"
            ) from error
        return await self._complete(endpoint, curve_key, list_key)

    async def _complete(self, endpoint: str, curve_key: bytes, list_key: bytes | None) -> RingService:
        """Enrolled before lists or logs were signed: the key comes by the way of an enrolment, over TLS to the root."""
        try:
            response = await ask(self._client, "GET", "/api/v1/ring-service")
            response.raise_for_status()
            service = _service_of(response.json())
        except (httpx.HTTPError, RemoteProtocolError, *MALFORMED) as error:
            raise StromkreisError(
                f"{self._known}: it lacks a key of epochs' lists or of the enrolment log, and"
                f" {self._config.coordinator} does not say it ({error}); expected a coordinator of this release there"
            ) from error
        if service.curve_key != curve_key or list_key not in (None, service.list_key):
            raise StromkreisError(
                f"{self._known}: the coordinator at {self._config.coordinator} has another CURVE or list key than the"
                " one that this node enrolled with"
            )
        service = service._replace(endpoint=endpoint)
        self._keep(service)
        return service

    def _keep(self, service: RingService) -> None:
        kept = {
            "endpoint": service.endpoint, "curve_key": service.curve_key.hex(), "list_key": service.list_key.hex(),
            "log_key": service.log_key.hex(),
        }  # fmt: skip
        _write(self._known, json.dumps(kept))

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
                response = await ask(self._client, "POST", "/api/v1/enrol", json=body)
            except RemoteProtocolError as error:
                raise StromkreisError(f"gateway {gateway.id}: the enrolment's answer does not hold: {error}") from error
            except httpx.TransportError as error:
                trouble = f"{type(error).__name__}: {error}; expected its HTTPS address in node.coordinator"
            else:
                if response.status_code == 201:
                    return _object(response, gateway.id)
                if response.status_code != _UNAVAILABLE:
                    told = refusal_text(response)
                    raise EnrolmentRefusedError(
                        f"gateway {gateway.id}: enrolment refused with status {response.status_code}: {told}",
                        may_pass=told.startswith(_MAY_PASS),
                    )
                trouble = f"its database fails, see its log; status {_UNAVAILABLE}"
            if trio.current_time() > give_up_s:
                raise CoordinatorAwayError(
                    f"{self._config.coordinator}: the coordinator cannot be reached for enrolment ({trouble})"
                )
            await trio.sleep(pause_s)
            pause_s = min(5.0, 2 * pause_s)


def _service_of(answer: dict[str, str]) -> RingService:
    """What an answer says of the ring service.  Raises KeyError or ValueError where it says none of it."""
    keys = [bytes.fromhex(answer[f"coordinator_{name}_key"]) for name in ("curve", "list", "log")]
    if any(len(key) != _KEY_SIZE for key in keys):
        raise ValueError(f"expected keys of {_KEY_SIZE} bytes")
    return RingService(str(answer["endpoint"]), *keys)


def _object(response: httpx.Response, gateway: str) -> dict[str, str]:
    try:
        answer = response.json()
    except (ValueError, RecursionError) as error:
        raise StromkreisError(f"gateway {gateway}: the enrolment's answer is no JSON") from error
    if not isinstance(answer, dict):
        raise StromkreisError(f"gateway {gateway}: the enrolment's answer is JSON, but no object")
    return answer


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)
