"""The participant's end of a tunnel: which gateway, and which of its connections, a program gets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding

from coordinator.gwa.revocation import RevocationPublisher
from coordinator.web.tunnel_orders import make_order_app
from protocol import pki
from protocol.link.pinned_tls import open_pinned
from protocol.link.tls import client_context, server_context
from stromkreis.handshakes import HANDSHAKES_MAX
from stromkreis.participant_tunnel import ParticipantTunnel, Wanted
from tests.integration.gwa_world import ONE, client_of, world_in
from tests.integration.test_tunnel_orders import Orders, until

HELLO = b"hello"


@dataclass
class Asked:
    """A program has asked, and its order waits; `port` is where the gateway connects."""

    made: Orders
    port: int

    async def heard(self, server_name: str | None = None) -> bytes:
        """What the gateway hears first when it connects and calls the participant so."""
        context = client_context(self.made.world.path / "pki/root.pem")
        context.check_hostname = False  # the fingerprint says who it is
        self.made.world.modules[ONE].load_tls(context)
        session = open_pinned(
            "127.0.0.1", self.port, context, self.made.participant, connect_s=60, close_s=1, server_name=server_name
        )
        async with session as stream:
            try:
                return bytes(await stream.receive_some())
            except trio.BrokenResourceError:
                return b""


@asynccontextmanager
async def asked(folder: Path, listed: Any = None, **changed: Any) -> AsyncIterator[Asked]:
    """`listed` has the serials and the age of one more list of the sub-CA; `changed` is the proxy profile's."""
    now = datetime.now(UTC)
    with trio.fail_after(300):
        async with world_in(folder, now) as world, client_of(world) as operator:
            made = Orders(world)
            await world.roll_out(operator, made.document(**changed))
            bundle = RevocationPublisher(folder / "pki", world.authority, world.coordinator.certificates).bundle(now)
            if listed is not None:
                serials, age = listed(made)
                more = pki.issue_revocation_list(
                    world.authority.sub_ca, world.authority.sub_ca_key, [(each, now - age) for each in serials],
                    number=2**62, this_update=now - age, next_update=now - age + timedelta(days=7),
                )  # fmt: skip
                bundle += more.public_bytes(Encoding.PEM)
            app = make_order_app(made.orders, made.metrics, lambda: bundle)

            async def over_tls(scope: Any, receive: Any, send: Any) -> None:
                scope["extensions"] = {"tls": {"client_cert_chain": [made.pem]}}
                await app(scope, receive, send)

            transport = httpx.ASGITransport(over_tls)
            async with httpx.AsyncClient(transport=transport, base_url="https://gwa") as client:
                tunnel = ParticipantTunnel(
                    Wanted(gateway=ONE, proxy="x1"), client,
                    server_context(
                        folder / "pki/emt-tls.pem", folder / "pki/emt-tls.key", client_root=folder / "pki/root.pem"
                    ),
                    world.authority.root, [world.authority.sub_ca],
                )  # fmt: skip
                async with trio.open_nursery() as nursery:
                    port, local = await nursery.start(tunnel.serve, ("127.0.0.1", 0), ("127.0.0.1", 0))
                    async with await trio.open_tcp_stream("127.0.0.1", local) as program:
                        await program.send_all(HELLO)
                        await until(lambda: bool(made.orders.waiting([ONE])))
                        yield Asked(made, port)
                    nursery.cancel_scope.cancel()


def revoked(made: Orders) -> tuple[list[int], timedelta]:
    return [pki.load_certificate(made.world.modules[ONE].certificates[2]).serial_number], timedelta(hours=1)


def stale(_: Orders) -> tuple[list[int], timedelta]:
    return [], timedelta(days=8)


def current(_: Orders) -> tuple[list[int], timedelta]:
    return [], timedelta(hours=1)


@pytest.mark.parametrize(("listed", "expected"), [(current, HELLO), (revoked, b""), (stale, b"")])
async def test_a_gateway_that_is_revoked_or_may_be_gets_no_program(
    tmp_path: Path, listed: Any, expected: bytes
) -> None:
    async with asked(tmp_path, listed) as each:
        assert await each.heard() == expected


async def test_a_program_gets_the_connection_of_the_profile_it_ordered(tmp_path: Path) -> None:
    async with asked(tmp_path, wan_server_name="x1.emp.example") as each:
        assert await each.heard("x2.emp.example") == b""
        assert await each.heard() == b""
        assert await each.heard("X1.emp.example") == HELLO


async def test_strangers_that_say_nothing_are_few_and_keep_no_gateway_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stromkreis.participant_tunnel._HANDSHAKE_S", 3_600)
    async with asked(tmp_path) as each, AsyncExitStack() as stack:
        strangers = [
            await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", each.port))
            for _ in range(HANDSHAKES_MAX + 1)
        ]
        assert await strangers[0].receive_some() == b""
        assert await each.heard() == HELLO
