"""What one web connection does costs that connection: the server of coordinator and node goes on."""

import io
import logging
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anycorn
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from protocol.link.web_server import serve_asgi

ROOT = Path(__file__).parents[2]
LARGE = bytes(40_000_000)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")]),
    )
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "server.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


class Config(anycorn.Config):
    """With a TLS context of the test's own."""

    context: ssl.SSLContext | None = None

    def create_ssl_context(self) -> ssl.SSLContext | None:
        return self.context

    @property
    def ssl_enabled(self) -> bool:
        return self.context is not None


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for stage in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{stage}.complete"})
        return
    body = LARGE if scope["path"] == "/large" else b"ok"
    headers = [(b"connection", b"close"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def served(certificate: Path) -> AsyncIterator[int]:
    config = Config()
    config.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    config.context.load_cert_chain(certificate)
    config.bind, config.alpn_protocols = ["127.0.0.1:0"], ["http/1.1"]
    config.graceful_timeout, config.accesslog = 0.2, None
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:

            async def serve(*, task_status: Any) -> None:
                await serve_asgi(application, config, task_status)

            bound = await nursery.start(serve)
            yield int(bound[0].rsplit(":", 1)[1])
            nursery.cancel_scope.cancel()


def connected(port: int) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", port), timeout=20)
    return context.wrap_socket(plain)


def answer(port: int) -> bytes:
    with connected(port) as secure:
        secure.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        found = b""
        while data := secure.recv(4096):
            found += data
        return found


def junk_record(port: int) -> None:
    """After the handshake, beneath TLS: a record that does not authenticate."""
    with connected(port) as secure, socket.socket(fileno=os.dup(secure.fileno())) as plain:
        plain.settimeout(20)
        plain.sendall(b"\x17\x03\x03\x00\x20" + b"g" * 32)
        plain.recv(4096)


def reset(port: int) -> None:
    with connected(port) as secure:
        secure.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        secure.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")


def key_updates_beside_slow_reading(port: int) -> None:
    """A large answer read slowly, and TLS 1.3 key updates that ask for one back (`K` of `openssl s_client`)."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        assert isinstance(client.stdout, io.BufferedReader)
        assert client.stdin is not None
        while b"---" not in client.stdout.read1(16_384):
            pass
        client.stdin.write(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.stdin.flush()
        for count in range(60):
            client.stdout.read1(16_384)
            time.sleep(0.005)  # slower than the server, which then waits for room while it reads the update
            if count % 20 == 19:
                client.stdin.write(b"K\n")
                client.stdin.flush()
        client.kill()


@pytest.mark.parametrize("attack", [junk_record, reset, key_updates_beside_slow_reading])
async def test_a_connection_that_breaks_the_rules_ends_alone(
    certificate: Path, caplog: pytest.LogCaptureFixture, attack: Callable[[int], None]
) -> None:
    with caplog.at_level(logging.WARNING):
        async with served(certificate) as port:
            for _ in range(3):
                await trio.to_thread.run_sync(attack, port)
            assert (await trio.to_thread.run_sync(answer, port)).endswith(b"ok")
    assert len([each for each in caplog.records if "web connection" in each.message]) <= 1


EXHAUSTED = """
import resource, socket, sys
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
import trio, anycorn
from protocol.link.web_server import serve_asgi
from tests.integration.test_web_server import application

def client(port):
    import subprocess
    code = '''
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (1000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
idle = [socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) for _ in range(90)]
for each in idle: each.close()
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=30) as last:
    last.sendall(b"GET / HTTP/1.1\\\\r\\\\nHost: localhost\\\\r\\\\n\\\\r\\\\n")
    found = b""
    while data := last.recv(4096): found += data
print(found.endswith(b"ok"))
'''
    return process.wait() if (process := subprocess.Popen([sys.executable, "-c", code, str(port)])) else None

async def main():
    config = anycorn.Config()
    config.bind, config.graceful_timeout, config.accesslog = ["127.0.0.1:0"], 0.2, None
    async with trio.open_nursery() as nursery:
        async def serve(*, task_status):
            await serve_asgi(application, config, task_status)
        bound = await nursery.start(serve)
        with trio.fail_after(120):
            await trio.to_thread.run_sync(client, int(bound[0].rsplit(":", 1)[1]))
        nursery.cancel_scope.cancel()

trio.run(main)
"""


def test_without_a_descriptor_left_the_listener_waits_and_goes_on() -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EXHAUSTED],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, "True\n"), ended.stderr[-2000:]
