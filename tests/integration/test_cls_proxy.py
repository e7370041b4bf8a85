"""The proxy for controllable systems over real sockets: who gets through, what is told, what hostile ends cost."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trio

from loadtest.ports import free_port
from node.cls import admission, participant, proxy
from node.cls.relay import RateLimit
from protocol.errors import RemoteProtocolError
from protocol.logs.events import Event
from protocol.pki.han import HanRole
from protocol.socks_tls import Closed, Destination, Reply
from tests.integration.cls_world import NAME, ClsHome, Stream, cls_home, own_certificate
from tests.unit.socks_tls_pair import client_side, credentials


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[ClsHome]:
    with trio.fail_after(120):
        async with cls_home(tmp_path) as made:
            yield made


async def read(stream: Any, size: int) -> bytes:
    found = b""
    while len(found) < size and (data := await stream.receive_some()):
        found += data
    return found


async def noted(home: ClsHome, event: Event) -> dict[str, Any]:
    while True:
        for each, parameters in home.world.noted:
            if each is event:
                return parameters
        await trio.sleep(0.01)


async def test_a_system_reaches_its_participant_and_both_are_known(home: ClsHome) -> None:
    async with home.system() as system:
        assert await home.ask(system) is Reply.SUCCEEDED
        await system.send_all(b"power limit?")
        assert await read(system, 12) == b"power limit?"
        assert home.participant.seen == [own_certificate(home.world)]
        assert home.registry.get_sample_value("stromkreis_node_cls_tunnels") == home.tunnels.open_by("x1") == 1
    ended = await noted(home, Event.CLS_ENDED)
    assert home.tunnels.open_by("x1") == 0
    assert ended == {
        "system": "heat-pump", "participant": "Stadtwerke", "reason": "closed_by_cls", "count": 1, "sent": 12,
        "received": 12,
    }  # fmt: skip
    assert (await noted(home, Event.CLS_CONNECTED))["participant"] == "Stadtwerke"
    assert home.registry.get_sample_value("stromkreis_node_cls_tunnels") == 0
    assert home.registry.get_sample_value("stromkreis_node_cls_bytes_total", {"direction": "sent"}) == 12


async def test_the_participants_end_is_the_systems_end(home: ClsHome) -> None:
    async def once(stream: Stream) -> None:
        await stream.send_all(b"bye")

    home.participant.serve = once
    async with home.system() as system:
        assert await home.ask(system) is Reply.SUCCEEDED
        assert await read(system, 3) == b"bye"
        assert await system.next_event() == Closed(is_clean=True)
    assert (await noted(home, Event.CLS_ENDED))["reason"] == "closed_by_participant"


ASKED = [
    (NAME, 1, Reply.SUCCEEDED), ("other.example", 443, Reply.NOT_ALLOWED), ("", 443, Reply.NOT_ALLOWED),
    ("Emp.example", 443, Reply.NOT_ALLOWED), ("a" * 64, 443, Reply.NOT_ALLOWED),
    (ip_address("127.0.0.1"), None, Reply.SUCCEEDED), (ip_address("127.0.0.1"), 1, Reply.NOT_ALLOWED),
    (ip_address("::1"), None, Reply.NOT_ALLOWED),
]  # fmt: skip


async def test_what_is_asked_for_must_be_in_a_profile(home: ClsHome) -> None:
    for host, port, reply in ASKED:
        async with home.system() as system:
            wanted = Destination(host, home.participant.port if port is None else port)
            assert await home.ask(system, wanted) is reply, wanted
    assert home.count("connected") == 2
    assert home.count("no_profile") == 6


NOT_IN_FORCE: list[dict[str, Any]] = [
    {"initiators": ["participant", "gateway"]}, {"valid_from": "2090-01-01T00:00:00Z"},
    {"valid_to": "2020-01-02T00:00:00Z"}, {"cls": "wallbox"},
]  # fmt: skip


async def test_a_profile_that_does_not_count_now_opens_nothing(home: ClsHome) -> None:
    for version, changed in enumerate(NOT_IN_FORCE, 2):
        made = home.document(version, **changed)
        made["han"].append(made["han"][0] | {"id": "h2", "user": "wallbox", "certificate": "22" * 32})
        await home.roll_out(made)
        async with home.system() as system:
            assert await home.ask(system) is Reply.NOT_ALLOWED, changed
    assert home.participant.seen == []


async def test_an_ipv6_participant_is_found_by_its_address(home: ClsHome) -> None:
    await home.roll_out(home.document(2, address="[::1]:1"))
    async with home.system() as system:
        assert await home.ask(system, Destination(ip_address("::1"), 1)) is not Reply.NOT_ALLOWED  # nobody is there


async def test_a_certificate_of_no_profile_is_refused_in_the_handshake(home: ClsHome) -> None:
    stranger = client_side(credentials(HanRole.CLS, "1abc0099999999"))
    with pytest.raises((RemoteProtocolError, trio.BrokenResourceError, AssertionError)):
        async with home.system(stranger) as system:
            await home.ask(system)
    assert (await noted(home, Event.CLS_REFUSED))["reason"] == "tls_handshake"
    assert home.participant.seen == []


async def test_another_roles_certificate_opens_nothing(home: ClsHome) -> None:
    shown = credentials(HanRole.SERVICE, "technician7")
    made = home.document(2)
    made["certificates"].append(made["certificates"][-1])
    made["han"].append(
        {
            "valid_from": "2020-01-01T00:00:00Z", "id": "h2", "role": "technician", "user": "tech",
            "certificate": shown[1].fingerprint(shown[1].signature_hash_algorithm).hex(),  # type: ignore[arg-type]
        }
    )  # fmt: skip
    await home.roll_out(made)
    with pytest.raises((RemoteProtocolError, trio.BrokenResourceError, AssertionError)):
        async with home.system(client_side(shown)) as system:
            await home.ask(system)


async def test_a_participant_that_refuses_is_told_and_not_tried_again_at_once(home: ClsHome) -> None:
    await home.roll_out(home.document(2, address=f"127.0.0.1:{free_port()}"))
    for _ in range(2):
        async with home.system() as system:
            assert await home.ask(system) is Reply.REFUSED
    assert home.count("connection_refused") == 2


async def test_a_participant_that_does_not_answer_is_a_timeout(
    home: ClsHome, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(participant, "CONNECT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        await home.roll_out(home.document(2, address=f"127.0.0.1:{silent.getsockname()[1]}"))
        async with home.system() as system:
            assert await home.ask(system) is Reply.HOST_UNREACHABLE
    assert home.count("no_answer") == 1


async def test_another_server_than_the_profiles_hears_nothing(home: ClsHome) -> None:
    await home.roll_out(home.document(2, participant_certificate="11" * 32))
    heard: list[bytes] = []

    async def listen(stream: Stream) -> None:
        heard.append(bytes(await stream.receive_some()))

    home.participant.serve = listen
    async with home.system() as system:
        assert await home.ask(system) is Reply.REFUSED
    assert home.count("wrong_server") == 1
    assert b"".join(heard) == b""


async def test_a_server_of_another_root_is_refused(home: ClsHome) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    file = home.world.path / "other.pem"
    file.write_bytes(credentials(HanRole.GATEWAY, "estk0100000099")[0])
    context.load_cert_chain(file)
    async with trio.open_nursery() as nursery:

        async def serve(stream: Stream) -> None:
            with suppress(trio.BrokenResourceError):
                await stream.do_handshake()

        listeners = await nursery.start(trio.serve_ssl_over_tcp, serve, 0, context)
        port = listeners[0].transport_listener.socket.getsockname()[1]
        await home.roll_out(home.document(2, address=f"127.0.0.1:{port}"))
        async with home.system() as system:
            assert await home.ask(system) is Reply.REFUSED
        nursery.cancel_scope.cancel()
    assert home.count("tls_refused") == 1


async def test_a_new_set_without_the_profile_ends_its_tunnels(home: ClsHome) -> None:
    async with home.system() as system:
        assert await home.ask(system) is Reply.SUCCEEDED
        await home.roll_out(home.document(2, initiators=["participant"]))
        assert await system.next_event() == Closed(is_clean=True)
    assert (await noted(home, Event.CLS_ENDED))["reason"] == "profile_changed"


async def test_a_new_set_that_keeps_the_profile_keeps_its_tunnels(home: ClsHome) -> None:
    async with home.system() as system:
        assert await home.ask(system) is Reply.SUCCEEDED
        await home.roll_out(home.document(2))
        await system.send_all(b"still")
        assert await read(system, 5) == b"still"


async def test_large_data_comes_whole_in_both_directions(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4_096
    with trio.fail_after(120):
        async with cls_home(tmp_path, rate=RateLimit(1e9)) as home, home.system() as system:
            assert await home.ask(system) is Reply.SUCCEEDED
            async with trio.open_nursery() as nursery:
                nursery.start_soon(system.send_all, content)
                assert await read(system, len(content)) == content


async def test_a_participant_that_does_not_read_stops_the_system(home: ClsHome) -> None:
    async def stall(_: Stream) -> None:
        await trio.sleep_forever()

    home.participant.serve = stall
    sent = 0
    async with home.system() as system:
        assert await home.ask(system) is Reply.SUCCEEDED
        with trio.move_on_after(3) as limit:
            while sent < 64 << 20:
                await system.send_all(bytes(65_536))
                sent += 65_536
        assert limit.cancelled_caught
        async with home.system() as other:  # meanwhile others are served
            assert await home.ask(other, Destination("unknown", 1)) is Reply.NOT_ALLOWED
    assert sent < 32 << 20  # what the sockets of both sides hold


async def test_slow_ends_are_cut_before_they_have_asked(home: ClsHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "REQUEST_S", 0.5)
    for beginning in (b"", b"\x05", b"\x05\x01\x06\x01"):
        transport = await trio.open_tcp_stream(*home.address)
        await transport.send_all(beginning)
        while await transport.receive_some(100):
            pass
        await transport.aclose()
    async with home.system() as system:  # the handshake alone is not enough
        assert await system.next_event() == Closed(is_clean=True)
    assert home.count("too_slow") >= 3


async def test_two_hundred_connections_leave_a_place_for_others(home: ClsHome) -> None:
    idle = []
    for _ in range(200):
        idle.append(await trio.open_tcp_stream(*home.address))
    async with home.system(source="127.0.0.2") as system:
        assert await home.ask(system) is Reply.SUCCEEDED
        await system.send_all(b"here")
        assert await read(system, 4) == b"here"
    assert home.count("too_many") == 200 - admission.CONNECTIONS_PER_ADDRESS_MAX
    for each in idle:
        await each.aclose()


async def test_octets_of_no_kind_cost_their_connection_alone(home: ClsHome) -> None:
    for octets in (b"GET / HTTP/1.1\r\n\r\n", b"\x05\x01\x00", b"\x04\x01", b"\x05\x01\x06" + b"\xff" * 5_000,
                   b"\x05\x01\x06\x01\x01\xff\xff" + b"\x16\x03\x01\xff\xff" * 9_000):  # fmt: skip
        transport = await trio.open_tcp_stream(*home.address)
        await transport.send_all(octets)
        await transport.send_eof()
        with suppress(trio.BrokenResourceError):
            while await transport.receive_some(4_096):
                pass
        await transport.aclose()
    async with home.system() as system:
        assert await home.ask(system) is Reply.SUCCEEDED


async def test_a_system_has_so_many_tunnels_and_no_more(home: ClsHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home.tunnels, "systems", admission.Quota(1))
    async with home.system() as first:
        assert await home.ask(first) is Reply.SUCCEEDED
        async with home.system() as second:
            assert await home.ask(second) is Reply.GENERAL_FAILURE
    while True:  # the first one's place is free a moment later
        async with home.system() as third:
            if await home.ask(third) is Reply.SUCCEEDED:
                break
