"""
As much of the Kubernetes API server as Jobs of ours talk to: Secrets, ConfigMaps and pods of one namespace over https,
for a bearer token, and only what the service account's Role allows.
"""

from __future__ import annotations

import base64
import json
import secrets
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.cluster.manifests import Object, named, of_kind

PORT = 6443


class ApiServer:
    """Holds what was created; `bound` makes the listening socket where pods reach it."""

    def __init__(
        self, objects: list[Object], address: str, directory: Path, bound: Callable[[], socket.socket]
    ) -> None:
        self._objects = objects
        self.created: dict[tuple[str, str], Object] = {}
        self.tokens = {each["metadata"]["name"]: secrets.token_hex(16) for each in of_kind(objects, "ServiceAccount")}
        self._lock = threading.Lock()
        self.certificate = _certify(address, directory)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "api.pem", directory / "api.key")
        self._server = ThreadingHTTPServer(("0.0.0.0", 0), self._handler(), bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = context.wrap_socket(bound(), server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def secrets(self) -> dict[str, dict[str, bytes]]:
        """The data of each Secret by name and key."""
        with self._lock:
            return {
                name: {key: base64.b64decode(value) for key, value in each["data"].items()}
                for (kind, name), each in self.created.items()
                if kind == "secrets"
            }

    def config_maps(self) -> list[Object]:
        """The ConfigMaps that were created."""
        with self._lock:
            return [each for (kind, _), each in self.created.items() if kind == "configmaps"]

    def answer(self, token: str, method: str, path: str, body: Object | None) -> tuple[int, Object]:
        """Status and body of the answer to a request."""
        kind, _, name = path.removeprefix("/api/v1/namespaces/stromkreis/").partition("/")
        account = next((each for each, known in self.tokens.items() if secrets.compare_digest(known, token)), None)
        if account is None:
            return 401, {}
        if not self._allows(account, {"POST": "create", "GET": "get"}.get(method, ""), kind, name):
            return 403, {}
        with self._lock:
            if method == "GET":
                found = self.created.get((kind, name))
                return (200, found) if found is not None else (404, {})
            assert body is not None
            key = kind, body["metadata"]["name"]
            if key in self.created:
                return 409, {}
            self.created[key] = body
            return 201, body

    def _allows(self, account: str, verb: str, kind: str, name: str) -> bool:
        for binding in of_kind(self._objects, "RoleBinding"):
            if account in [each["name"] for each in binding["subjects"]]:
                for rule in named(self._objects, "Role", binding["roleRef"]["name"])["rules"]:
                    is_named = name in rule["resourceNames"] if "resourceNames" in rule else True
                    if kind in rule["resources"] and verb in rule["verbs"] and is_named:
                        return True
        return False

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, body: Any) -> None:
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                status, answer = server.answer(token, self.command, self.path, body)
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


def _certify(address: str, directory: Path) -> str:
    """A self-signed certificate of the server, which is what pods get as `ca.crt`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (directory / "api.pem").write_bytes(pem)
    no_password = serialization.NoEncryption()
    (directory / "api.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password)
    )
    return pem.decode()
