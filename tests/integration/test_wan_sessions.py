"""TLS sessions that a gateway opens on the WAN, octet by octet (BSI TR-03109-1, details, chapters 6.3 and 13)."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import trio

from coordinator.gwa.participants import certified_key
from node.wan import tls_session
from node.wan.tls_session import open_session
from protocol import pki
from protocol.errors import RemoteProtocolError
from protocol.link.tls import client_context, server_context
from protocol.profiles.communication import WanProfile
from tests.integration.gwa_world import ONE, SHA256, World, world_in

HEADERS = [("Content-Type", "application/vnd.de-dke-k461-cosem+xml;encap=cms-tr03109"), ("x-CID", "uuid:1")]
Stream = trio.SSLStream[trio.SocketStream]


@dataclass
class Server:
    """A market participant that answers what the test says."""

    world: World
    answer: bytes = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
    heard: list[bytes] = field(default_factory=list)
    then: Callable[[Stream], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        pki_path = self.world.path / "pki"
        role = pki.Role.PARTICIPANT_TLS
        self.certificate = certified_key(pki_path, "emt-tls", self.world.authority, role, datetime.now(UTC)).certificate
        self.context = server_context(
            pki_path / "emt-tls.pem", pki_path / "emt-tls.key", client_root=pki_path / "root.pem"
        )

    async def serve(self, stream: Stream) -> None:
        try:
            while True:
                request = b""
                while b"\r\n\r\n" not in request or not request.endswith(b"END"):
                    data = await stream.receive_some(65_536)
                    if not data:
                        return
                    request += data
                self.heard.append(request)
                await stream.send_all(self.answer)
                if self.then is not None:
                    await self.then(stream)
        except trio.BrokenResourceError:
            return
        finally:
            with trio.move_on_after(0.1, shield=True):
                await trio.aclose_forcefully(stream)

    def profile(self, port: int, **changed: str) -> WanProfile:
        shown = self.certificate.fingerprint(SHA256).hex()
        fields = {
            "id": "w1", "role": "participant", "uri": f"https://127.0.0.1:{port}/cosem/deliveries",
            "tls_certificate": shown, "encryption_certificate": shown, "signature_certificate": shown,
        } | changed  # fmt: skip
        return WanProfile(valid_from=datetime(2026, 1, 1, tzinfo=UTC), **fields)  # type: ignore[arg-type]


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_ssl_over_tcp, server.serve, 0, server.context, host="127.0.0.1")
        listeners = await nursery.start(serve)
        yield listeners[0].transport_listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with world_in(tmp_path, datetime.now(UTC)) as world:
        yield Server(world)


def context_of(server: Server, *, own: bool = True) -> ssl.SSLContext:
    context = client_context(server.world.path / "pki" / "root.pem")
    context.check_hostname = False
    if own:
        server.world.modules[ONE].load_tls(context)
    return context


async def post(server: Server, port: int, times: int = 1) -> list[int]:
    async with open_session(server.profile(port), context_of(server)) as session:
        return [(await session.post("/cosem/deliveries", b"content END", HEADERS)).status for _ in range(times)]


async def test_a_request_has_these_lines_and_no_others(server: Server) -> None:
    async with serving(server) as port:
        assert await post(server, port, times=2) == [201, 201]
    head, _, content = server.heard[0].partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /cosem/deliveries HTTP/1.1", f"Host: 127.0.0.1:{port}".encode(), b"Content-Length: 11",
        b"Content-Type: application/vnd.de-dke-k461-cosem+xml;encap=cms-tr03109", b"x-CID: uuid:1",
    ]  # fmt: skip
    assert content == b"content END"
    assert server.heard[1] == server.heard[0]  # in one session


@pytest.mark.parametrize("status", [200, 204, 307, 400, 403, 404, 409, 413, 415, 422, 500, 503])
async def test_each_status_is_handed_on_with_its_content(server: Server, status: int) -> None:
    server.answer = f"HTTP/1.1 {status} X\r\nContent-Length: {0 if status == 204 else 4}\r\n\r\n".encode()
    server.answer += b"" if status == 204 else b"text"
    async with serving(server) as port:
        assert await post(server, port) == [status]


async def test_long_header_fields_and_headers_are_read(server: Server) -> None:
    fields = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 243) for number in range(6))  # 250 with name and line end
    server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + fields + b"\r\n"
    async with serving(server) as port:
        assert await post(server, port) == [200]


BAD = [
    pytest.param(b"SMTP ready\r\n\r\n", id="no HTTP"), pytest.param(b"HTTP/1.1 OK\r\n\r\n", id="no status"),
    pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", id="a header without end"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"a" * 200_000, id="an answer without end"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", id="no length"),
]  # fmt: skip


@pytest.mark.parametrize("answer", BAD)
async def test_what_is_no_answer_is_refused(server: Server, answer: bytes) -> None:
    server.answer = answer
    async with serving(server) as port:
        with pytest.raises(RemoteProtocolError, match="bad_answer"):
            await post(server, port)


async def test_a_session_that_is_cut_ends_the_request(server: Server) -> None:
    async def cut(stream: Stream) -> None:
        await trio.aclose_forcefully(stream)

    server.answer, server.then = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", cut
    async with serving(server) as port:
        with trio.fail_after(120), pytest.raises((RemoteProtocolError, trio.BrokenResourceError)):
            await post(server, port)


async def test_a_peer_that_never_closes_is_left_in_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 s in the field: neither side's close_notify is answered."""
    assert tls_session.CLOSE_S == 20.0
    monkeypatch.setattr(tls_session, "CLOSE_S", 0.3)

    async def wait(_: Stream) -> None:
        await trio.sleep_forever()

    server.then = wait
    async with serving(server) as port:
        with trio.fail_after(120):
            assert await post(server, port) == [201]


async def test_a_server_that_is_not_the_profiles_hears_nothing(server: Server) -> None:
    async with serving(server) as port:
        profile = server.profile(port, tls_certificate="ab" * 32)
        with pytest.raises(RemoteProtocolError, match="wrong_server"):
            async with open_session(profile, context_of(server)) as session:
                await session.post("/", b"content END", HEADERS)
    assert server.heard == []


async def test_both_sides_show_certificates_of_the_root(server: Server, tmp_path: Path) -> None:
    async with serving(server) as port:
        with pytest.raises((ssl.SSLError, trio.BrokenResourceError)):
            async with open_session(server.profile(port), context_of(server, own=False)) as session:
                await session.post("/", b"content END", HEADERS)
        async with world_in(tmp_path / "other", datetime.now(UTC)) as other:
            stranger = Server(other)
            with pytest.raises(trio.BrokenResourceError):
                async with open_session(server.profile(port), context_of(stranger)):
                    pass
    assert server.heard == []


async def test_only_these_suites_and_no_renegotiation_are_offered(server: Server) -> None:
    context = context_of(server)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    names = {each["name"] for each in context.get_ciphers() if each["protocol"] == "TLSv1.2"}
    assert names == {"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"}
