"""`stromkreis han export`: a consumer's values as a file for display software, from the gateway at home."""

from __future__ import annotations

import hashlib
import hmac
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from protocol.errors import StromkreisError

BASE = "/smgw/con/v1/exp/ArFile"
_TIMEOUT_S = 30.0
_PORT = 443


class Gateway:
    """
    A gateway's interface to the home, reached at `address` (`https://HOST[:PORT]`).

    `fingerprint` is the SHA-256 of its certificate; where it is empty or another one nothing is asked, and no password
    is used.  Raises StromkreisError.
    """

    def __init__(self, address: str, user: str, password: str, fingerprint: str) -> None:
        parts = urlsplit(address)
        if parts.scheme != "https" or not parts.hostname or parts.path not in {"", "/"}:
            raise StromkreisError(f"{address}: expected an address such as https://192.168.1.200")
        context = _context(parts.hostname, parts.port or _PORT, fingerprint)
        self._client = httpx.Client(
            base_url=address, verify=context, auth=httpx.DigestAuth(user, password), timeout=_TIMEOUT_S
        )

    def names(self) -> list[str]:
        """What can be exported: processing profiles and meters."""
        return [uri.rpartition("/")[2] for uri in self._get(f"{BASE}/", {})]

    def file(self, name: str, from_time: str | None, to_time: str | None) -> tuple[str, str]:
        """Name and content of a file; times are dates, or date-times with their offset."""
        given = {"q.fromtime": from_time, "q.totime": to_time}
        answer = self._get(f"{BASE}/{name}", {key: value for key, value in given.items() if value is not None})
        return answer["data"]["name"], answer["data"]["document"]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _get(self, path: str, query: dict[str, str]) -> Any:
        try:
            answer = self._client.get(path, params=query)
        except httpx.HTTPError as error:
            raise StromkreisError(f"the gateway does not answer ({type(error).__name__}): {error}") from error
        if answer.is_success:
            return answer.json()
        try:
            said = answer.json()["detail"]
        except (ValueError, KeyError, TypeError):
            said = "without a reason"
        raise StromkreisError(f"the gateway refuses with {answer.status_code}: {said}")


def write(path: Path, content: str) -> None:
    """A new file that only its owner reads.  Raises StromkreisError where there is one, or it cannot be written."""
    try:
        path.touch(mode=0o600, exist_ok=False)  # a household's values
        path.write_text(content, encoding="utf-8")
    except FileExistsError as error:
        raise StromkreisError(f"{path} exists; give another name with --output") from error
    except OSError as error:
        raise StromkreisError(f"{path} cannot be written: {error.strerror}") from error


def _context(host: str, port: int, fingerprint: str) -> ssl.SSLContext:
    """For the one certificate that was compared; it is self-signed, so no authority vouches for it."""
    try:
        pem = ssl.get_server_certificate((host, port), timeout=_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise StromkreisError(f"{host}:{port} does not answer ({type(error).__name__})") from error
    shown = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    wanted = fingerprint.replace(":", "").lower()
    if not hmac.compare_digest(shown.encode(), wanted.encode()):
        raise StromkreisError(
            f"{host}:{port} shows the certificate {shown}; compare it with the letter that came with the gateway and "
            "give it with --gateway-sha256"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=pem)
    return context
