"""A gateway's proxy for controllable systems on a real port, profiles rolled out, a participant's TLS server."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import trio
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import CollectorRegistry

from coordinator.gwa.participants import certified_key
from node.cls.proxy import ClsProxy
from node.cls.relay import RateLimit
from node.cls.stream import SocksTlsStream
from node.cls.tunnels import ClsServices, Tunnels
from node.metrics import NodeMetrics
from node.profiles.checking import text_of
from node.profiles.gateway_profiles import GatewayProfiles
from node.storage.repositories.han import HanSecretRepository
from node.wan.administration import Administration
from protocol import pki
from protocol.link.tls import client_context, server_context
from protocol.pki.han import HanRole
from protocol.socks_tls import Authenticated, Destination, Replied, Reply, SocksTlsClient
from tests.integration.gwa_world import ONE, SHA256, World, client_of, world_in
from tests.unit.socks_tls_pair import SYSTEM, client_side, credentials

NAME = "emp.example"
EMP = Destination(NAME, 443)
Stream = trio.SSLStream[trio.SocketStream]
SystemStream = SocksTlsStream[SocksTlsClient]


async def echo(stream: Stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


def system_document(world: World, version: int, proxy: dict[str, Any]) -> dict[str, Any]:
    """A profile set with a controllable system, and the proxy profile that lets it reach a market participant."""
    timed = {"valid_from": "2020-01-01T00:00:00Z"}
    certificate = credentials(HanRole.CLS, SYSTEM)[1]
    made = world.document(ONE, version)
    made["certificates"].append(text_of(certificate))
    made["han"] = [timed | {
        "id": "h1", "role": "cls", "user": "heat-pump", "certificate": certificate.fingerprint(SHA256).hex(),
    }]  # fmt: skip
    made["proxy"] = [timed | {"id": "x1", "cls": "heat-pump", "participant": "Stadtwerke"} | proxy]
    return made


@dataclass
class Participant:
    """A market participant's server; `serve` is what it does with a connection, `seen` who has connected."""

    world: World
    serve: Callable[[Stream], Awaitable[None]] = echo
    seen: list[bytes] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        folder = self.world.path / "pki"
        role = pki.Role.PARTICIPANT_TLS
        made = certified_key(folder, "emt-tls", self.world.authority, role, datetime.now(UTC))
        self.fingerprint = made.certificate.fingerprint(SHA256).hex()
        self.context = server_context(folder / "emt-tls.pem", folder / "emt-tls.key", client_root=folder / "root.pem")

    async def connection(self, stream: Stream) -> None:
        try:
            await stream.do_handshake()
            self.seen.append(stream.getpeercert(binary_form=True) or b"")
            await self.serve(stream)
            await stream.aclose()
        except trio.BrokenResourceError:
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_ssl_over_tcp, self.connection, 0, self.context, host="127.0.0.1")
            listeners = await nursery.start(serve)
            self.port = listeners[0].transport_listener.socket.getsockname()[1]
            task_status.started()


@dataclass
class ClsHome:
    """What runs."""

    world: World
    participant: Participant
    proxy: ClsProxy
    tunnels: Tunnels
    profiles: GatewayProfiles
    client: httpx.AsyncClient
    registry: CollectorRegistry
    address: tuple[str, int] = ("", 0)

    def document(self, version: int, **changed: Any) -> dict[str, Any]:
        """One controllable system and its proxy profile; `changed` is the profile's."""
        proxy = {
            "server_name": NAME, "address": f"127.0.0.1:{self.participant.port}", "initiators": ["cls"],
            "participant_certificate": self.participant.fingerprint,
        }  # fmt: skip
        return system_document(self.world, version, proxy | changed)

    async def roll_out(self, document: dict[str, Any]) -> None:
        assert (await self.world.roll_out(self.client, document)).status_code == 202
        await Administration(self.client, lambda: [self.profiles], 60).look()
        assert self.profiles.version == document["version"], self.world.state(ONE)

    @asynccontextmanager
    async def system(
        self, context: ssl.SSLContext | None = None, source: str = "127.0.0.1"
    ) -> AsyncIterator[SystemStream]:
        """A controllable system that has not asked yet."""
        transport = await trio.open_tcp_stream(*self.address, local_address=source)
        stream = SystemStream(transport, SocksTlsClient(context or client_side()))
        try:
            await stream.flush()
            assert isinstance(await stream.next_event(), Authenticated)
            yield stream
        finally:
            await stream.aclose()

    async def ask(self, stream: SystemStream, destination: Destination = EMP) -> Reply:
        stream.core.connect(destination)
        await stream.flush()
        event = await stream.next_event()
        assert isinstance(event, Replied), event
        return event.reply

    def count(self, outcome: str) -> float:
        name = "stromkreis_node_cls_connections_total"
        return self.registry.get_sample_value(name, {"outcome": outcome}) or 0.0


@asynccontextmanager
async def cls_home(path: Path, *, rate: RateLimit | None = None, **changed: Any) -> AsyncIterator[ClsHome]:
    """`changed` is the proxy profile's in the first set."""
    async with world_in(path, datetime.now(UTC)) as world, client_of(world) as client, trio.open_nursery() as nursery:
        participant = Participant(world)
        await nursery.start(participant.run)
        registry = CollectorRegistry()
        services = ClsServices(
            secrets=HanSecretRepository(world.store), metrics=NodeMetrics(registry), trust=world.trust,
            tls_context=partial(client_context, path / "pki" / "root.pem"), listen={ONE: "0.0.0.0:0"},
        )  # fmt: skip
        profiles = world.profiles(ONE)
        noted = world.noted
        tunnels = Tunnels(
            services, world.modules[ONE], profiles, lambda event, **parameters: noted.append((event, parameters)),
            lambda: datetime.now(UTC).timestamp(), rate,
        )  # fmt: skip
        proxy = ClsProxy(tunnels)
        nursery.start_soon(tunnels.run)
        home = ClsHome(world, participant, proxy, tunnels, profiles, client, registry)
        await home.roll_out(home.document(1, **changed))
        home.address = ("127.0.0.1", (await nursery.start(proxy.run))[1])
        yield home
        nursery.cancel_scope.cancel()


def own_certificate(world: World) -> bytes:
    """The gateway's TLS certificate of the SM-PKI (DER)."""
    return pki.load_certificate(world.modules[ONE].certificates[2]).public_bytes(Encoding.DER)
