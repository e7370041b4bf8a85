"""Tunnels that the gateway opens to both ends: who may want them, when it begins by itself, whom it turns away."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from coordinator.gwa.ca import load_key
from node.cls.initiator import CONNECTED, TunnelInitiator
from node.mdns.lookup import Lookup
from node.trust import TrustStore
from protocol import pki
from protocol.errors import StromkreisError
from protocol.logs.events import Event
from protocol.pki.han import HanRole
from stromkreis.socks_adapter import CONNECTIONS_MAX, Gateway
from stromkreis.system_server import SystemServer, gateway_certificate, server_context
from tests.integration.cls_world import ClsHome, Stream, cls_home
from tests.integration.gwa_world import ONE, SHA256
from tests.unit.socks_tls_pair import SYSTEM, client_side, credentials

PAGE = b"state of charge 71 %\n"


async def device(stream: trio.SocketStream) -> None:
    """A program of the system: a web page on plain TCP."""
    heard = b""
    while b"\r\n\r\n" not in heard and (data := await stream.receive_some()):
        heard += data
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(PAGE) + PAGE)


def fingerprint(home: ClsHome) -> str:
    pem = home.tunnels.services.secrets.secret(ONE, "certificate")
    assert pem is not None
    return x509.load_pem_x509_certificate(pem).fingerprint(SHA256).hex()


def of_gateway(home: ClsHome) -> Gateway:
    host, port = home.address
    return Gateway(host=host, port=port, fingerprint=fingerprint(home), context=client_side())


@asynccontextmanager
async def adapting(home: ClsHome, shown: Any = None) -> AsyncIterator[int]:
    """The adapter's server with a device behind it; its port."""
    file = home.world.path / "cls.pem"
    file.write_bytes((shown or credentials(HanRole.CLS, SYSTEM))[0])
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, device, 0, host="127.0.0.1"))
        target = listeners[0].socket.getsockname()
        certificate = await gateway_certificate(of_gateway(home), random.Random(0))
        yield await nursery.start(SystemServer(server_context(file, certificate), target).serve, "127.0.0.1", 0)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def beginning(home: ClsHome) -> AsyncIterator[TunnelInitiator]:
    initiator = TunnelInitiator(home.tunnels, random.Random(0))
    async with trio.open_nursery() as nursery:
        await nursery.start(initiator.run)
        yield initiator
        nursery.cancel_scope.cancel()


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[ClsHome]:
    with trio.fail_after(300):
        async with cls_home(tmp_path) as made:
            made.participant.serve = asking
            yield made


answers: list[bytes] = []


async def asking(stream: Stream) -> None:
    """The participant asks the device for its page."""
    await stream.send_all(b"GET /soc HTTP/1.1\r\nHost: device\r\n\r\n")
    heard = b""
    while data := await stream.receive_some():
        heard += data
    answers.append(heard)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.sleep(0.01)


def begun(home: ClsHome) -> list[str]:
    return [parameters["result"] for event, parameters in home.world.noted if event is Event.CLS_BEGUN]


async def test_a_participant_reaches_a_device_behind_the_adapter(home: ClsHome) -> None:
    answers.clear()
    async with adapting(home) as port, beginning(home) as initiator:
        address = f"127.0.0.1:{port}"
        await home.roll_out(home.document(2, initiators=["participant"], cls_address=address))
        assert await initiator.begin("x1", "gateway") == "no_profile"
        assert await initiator.begin("x2", "participant") == "no_profile"
        assert await initiator.begin("x1", "participant", 60) == CONNECTED
        await until(lambda: bool(answers))
        assert answers[0].endswith(PAGE)
    assert begun(home) == [CONNECTED]
    assert home.count("connected") == 1


async def test_strangers_that_say_nothing_take_no_place_of_the_gateway(
    home: ClsHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stromkreis.system_server._HANDSHAKE_S", 3_600)
    answers.clear()
    async with adapting(home) as port, beginning(home) as initiator, AsyncExitStack() as stack:
        for _ in range(CONNECTIONS_MAX):
            await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
        await home.roll_out(home.document(2, initiators=["participant"], cls_address=f"127.0.0.1:{port}"))
        assert await initiator.begin("x1", "participant", 60) == CONNECTED
        await until(lambda: bool(answers))
        assert answers[0].endswith(PAGE)


async def test_an_end_that_is_not_the_profiles_gets_nothing(home: ClsHome) -> None:
    answers.clear()
    other = credentials(HanRole.CLS, "1abc0087654321")
    async with adapting(home, other) as port, beginning(home) as initiator:
        address = f"127.0.0.1:{port}"
        changed: list[dict[str, Any]] = [
            {"cls_address": address}, {"cls_address": "127.0.0.1:1"}, {},
        ]  # fmt: skip
        for version, each in enumerate(changed, 2):
            await home.roll_out(home.document(version, initiators=["participant"], **each))
            await initiator.begin("x1", "participant")
    assert begun(home) == ["cls_tls_refused", "cls_connection_refused", "no_cls_address"]
    assert home.participant.seen == answers == []  # nobody was called for them


async def test_a_revoked_participant_gets_no_tunnel_and_loses_its_own(
    home: ClsHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HKS3 and HKS4 alike: the list of its issuer is looked at for each tunnel, and while one is open."""
    lists, world = pki.RevocationLists(), home.world
    now = datetime.now(UTC)

    def publish(number: int, *serials: int) -> None:
        authority, days = world.authority, timedelta(days=7)
        root_key = load_key(world.path / "pki" / "root.key")
        pem = b""
        for issuer, key, listed in (
            (authority.sub_ca, authority.sub_ca_key, serials), (authority.root, root_key, ()),
        ):  # fmt: skip
            made = pki.issue_revocation_list(
                issuer, key, [(each, now) for each in listed], number=number, this_update=now, next_update=now + days
            )
            pem += made.public_bytes(Encoding.PEM)
        lists.take(pki.load_revocation_lists(pem, [authority.sub_ca, authority.root]))
        trust.forget_chains()

    trust = TrustStore(world.authority.root, lambda: datetime.now(UTC).timestamp(), lists)
    monkeypatch.setattr(home.tunnels, "services", replace(home.tunnels.services, trust=trust))
    publish(1)
    async with home.system() as system:
        home.participant.serve = waiting
        assert (await home.ask(system)).name == "SUCCEEDED"
        chain = x509.load_pem_x509_certificates((world.path / "pki" / "emt-tls.pem").read_bytes())
        publish(2, chain[0].serial_number)
        home.tunnels.profiles.changed.set()  # the look that is due every minute
        assert await system.receive_some() == b""
    async with home.system() as system:
        assert (await home.ask(system)).name == "REFUSED"
    assert home.count("certificate_revoked") == 1
    reasons = [parameters["reason"] for event, parameters in world.noted if event is Event.CLS_ENDED]
    assert reasons == ["profile_changed"]


async def waiting(stream: Stream) -> None:
    await stream.receive_some()


def gateway_begins(home: ClsHome, version: int, **changed: Any) -> dict[str, Any]:
    how = {"initiators": ["gateway"], "cls_address": "127.0.0.1:1"} | changed
    return home.document(version, **how)


async def test_a_gateway_begins_at_the_times_and_events_of_a_profile(
    home: ClsHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with adapting(home) as port:
        await home.roll_out(
            gateway_begins(home, 2, cls_address=f"127.0.0.1:{port}", begin_every_s=60, begin_events=["meter_fault"])
        )
        answers.clear()
        async with beginning(home) as initiator:
            initiator.on_event(Event.STARTED)
            initiator.on_event(Event.METER_FAULT)
            initiator.on_event(Event.METER_FAULT)
            await until(lambda: len(answers) == 1)
            moment = datetime.now(UTC)
            monkeypatch.setattr(home.tunnels, "now", lambda: moment + timedelta(seconds=60))
            home.tunnels.profiles.changed.set()  # the look at the clock
            await until(lambda: len(answers) == 2)
    assert begun(home) == [CONNECTED, CONNECTED]


async def test_a_system_is_found_by_its_name_at_home(home: ClsHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """`test_mdns_avahi.py` asks a foreign responder; here the answer is known, its first address is not reached."""
    lookup = Lookup(["lo"], random.Random(0))
    asked: list[str] = []

    async def addresses(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.77", "127.0.0.1"]

    monkeypatch.setattr(lookup, "addresses", addresses)
    answers.clear()
    async with adapting(home) as port, trio.open_nursery() as nursery:
        await home.roll_out(home.document(2, initiators=["participant"], cls_address=f"heatpump.local:{port}"))
        initiator = TunnelInitiator(home.tunnels, random.Random(0), lookup.connect)
        await nursery.start(initiator.run)
        assert await initiator.begin("x1", "participant") == CONNECTED
        await until(lambda: bool(answers))
        nursery.cancel_scope.cancel()
    assert asked == ["heatpump.local"]
    assert answers[0].endswith(PAGE)


async def test_a_name_at_home_that_nobody_has_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.mdns.lookup.ANSWER_S", 0.05)
    lookup = Lookup(["none0"], random.Random(0))
    with pytest.raises(OSError, match="nobody at home answers for heatpump"):
        await lookup.connect("heatpump.local", 1)
    with pytest.raises(OSError, match="expected labels of 1 to 63 octets"):
        await lookup.addresses(f"{'x' * 64}.local")


async def test_the_adapter_serves_no_other_gateway_than_the_one_known(home: ClsHome) -> None:
    known = of_gateway(home)
    wrong = Gateway(host=known.host, port=known.port, fingerprint="11" * 32, context=known.context)
    with pytest.raises(StromkreisError, match=fingerprint(home)):
        await gateway_certificate(wrong, random.Random(0))
    async with adapting(home) as port:
        context = client_side(credentials(HanRole.GATEWAY, "estk0100000009"))
        async with await trio.open_tcp_stream("127.0.0.1", port) as transport:
            with pytest.raises(trio.BrokenResourceError):
                await exchanged(trio.SSLStream(transport, context))


async def exchanged(stream: Stream) -> bytes:
    await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
    return bytes(await stream.receive_some())
