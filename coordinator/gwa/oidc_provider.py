"""
An OpenID provider as a relying party sees it: its discovery document, its keys, and a code turned into claims.

OpenID Connect Core 1.0, authorization code flow with PKCE (RFC 7636).  What is asked of an ID token (section 3.1.3.7):
a signature by a key of the provider that is fetched now, under an algorithm with a public key, for us, from the issuer
that is configured, not over, with the nonce of this log-in.  Where one thing fails nobody is logged in.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from authlib.oauth2.client import OAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from coordinator.oidc_config import OidcConfig
from protocol.errors import RemoteProtocolError

ALGORITHMS: Final = (
    "ES256",
    "ES384",
    "ES512",
    "PS256",
    "PS384",
    "PS512",
    "RS256",
    "RS384",
    "RS512",
    "Ed25519",
    "EdDSA",
)
ANSWER_SIZE_MAX: Final = 256 << 10
_TIMEOUT_S: Final = 10.0
ASKED_MAX: Final = 4
"""Requests at once: anybody may begin a log-in, and a provider that hangs must not hold every thread of ours."""
_LEEWAY_S: Final = 60
_DISCOVERY_S: Final = 300.0
_DISCOVERY: Final = "/.well-known/openid-configuration"
_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_MALFORMED: Final = (ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True)
class PendingLogIn:
    """What a log-in was begun with; `verifier` is PKCE's."""

    redirect_uri: str
    nonce: str
    verifier: str


class OidcProvider:
    """The one that is configured; methods block, and any thread may call them."""

    def __init__(self, config: OidcConfig, client: httpx.Client, monotonic: Callable[[], float]) -> None:
        self._config = config
        self._client = client
        self._monotonic = monotonic
        self._asked = threading.Semaphore(ASKED_MAX)
        self._known: tuple[float, dict[str, Any]] | None = None

    def authorization_url(self, pending: PendingLogIn, state: str) -> str:
        """Where the browser goes.  Raises RemoteProtocolError `oidc_provider`."""
        url, _ = self._oauth(pending).create_authorization_url(
            self._metadata()["authorization_endpoint"], state=state, code_verifier=pending.verifier, nonce=pending.nonce
        )
        return str(url)

    def claims(self, pending: PendingLogIn, code: str, now_s: int) -> Mapping[str, Any]:
        """
        The claims of who has logged in, by the code that the browser brought.

        Raises RemoteProtocolError `oidc_provider` where the provider fails, `oidc_refused` where it says no, or its
        token does not hold.
        """
        metadata = self._metadata()
        token = self._token(metadata["token_endpoint"], pending, code)
        keys = self._get(metadata["jwks_uri"])
        try:
            decoded = jwt.decode(token["id_token"], KeySet.import_key_set(keys), algorithms=ALGORITHMS)  # type: ignore[arg-type]
            claims = CodeIDToken(
                decoded.claims, decoded.header,
                {
                    "iss": {"essential": True, "value": self._config.issuer},
                    "aud": {"essential": True, "value": self._config.client_id},
                },
                {
                    "nonce": pending.nonce, "client_id": self._config.client_id,
                    "access_token": token.get("access_token"),
                },
            )  # fmt: skip
            claims.validate(now_s, _LEEWAY_S)
        except (JoseError, *_MALFORMED) as error:
            raise RemoteProtocolError("oidc_refused", f"the ID token does not hold ({type(error).__name__})") from None
        return dict(claims)

    def _oauth(self, pending: PendingLogIn) -> OAuth2Client:
        secret = self._config.client_secret
        return OAuth2Client(
            self._client, self._config.client_id, None if secret is None else secret.get_secret_value(),
            scope=self._config.scope, redirect_uri=pending.redirect_uri, code_challenge_method="S256",
        )  # fmt: skip

    def _token(self, endpoint: str, pending: PendingLogIn, code: str) -> dict[str, Any]:
        oauth = self._oauth(pending)
        # What authlib would send; its own adapters for HTTP clients are for requests and httpx2.
        body = oauth._prepare_token_endpoint_body("", "authorization_code", code=code, code_verifier=pending.verifier)
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        auth = oauth.client_auth(oauth.token_endpoint_auth_method)
        url, headers, body = auth.prepare("POST", endpoint, headers, body)
        status, answer = self._ask("POST", url, content=body, headers=headers)
        if status != httpx.codes.OK:
            raise RemoteProtocolError("oidc_refused", f"the provider gives no token: {_error_of(answer, status)}")
        return answer

    def _metadata(self) -> dict[str, Any]:
        """The discovery document, held to the issuer.  Raises RemoteProtocolError `oidc_provider`."""
        if self._known is not None and self._monotonic() - self._known[0] < _DISCOVERY_S:
            return self._known[1]  # anybody may begin a log-in, and must not have us ask each time
        found = self._get(f"{self._config.issuer.rstrip('/')}{_DISCOVERY}")
        if found.get("issuer") != self._config.issuer:
            raise RemoteProtocolError("oidc_provider", "its discovery document is of another issuer than configured")
        for name in _ENDPOINTS:
            url = found.get(name)
            if not isinstance(url, str) or urlsplit(url).scheme != urlsplit(self._config.issuer).scheme:
                raise RemoteProtocolError("oidc_provider", f"its discovery document has no {name}, or over plain http")
        self._known = self._monotonic(), found
        return found

    def _get(self, url: str) -> dict[str, Any]:
        status, answer = self._ask("GET", url)
        if status != httpx.codes.OK:
            raise RemoteProtocolError("oidc_provider", f"it answers with status {status}")
        return answer

    def _ask(self, method: str, url: str, **how: Any) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of one answer, read up to a bound."""
        body = bytearray()
        if not self._asked.acquire(blocking=False):
            raise RemoteProtocolError("oidc_provider", "many log-ins wait for it; try again in a moment")
        try:
            with self._client.stream(method, url, **how) as response:
                for part in response.iter_bytes():
                    body += part
                    if len(body) > ANSWER_SIZE_MAX:
                        raise RemoteProtocolError("oidc_provider", f"an answer of over {ANSWER_SIZE_MAX} bytes")
            answer = httpx.Response(response.status_code, content=bytes(body)).json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise RemoteProtocolError("oidc_provider", f"it does not answer in JSON ({type(error).__name__})") from None
        finally:
            self._asked.release()
        if not isinstance(answer, dict):
            raise RemoteProtocolError("oidc_provider", "it answers with another JSON than an object")
        return response.status_code, answer


def oidc_client(config: OidcConfig) -> httpx.Client:
    """For requests to the provider; trusts the system's authorities or those that are configured.  Raises OSError."""
    context = ssl.create_default_context(cafile=config.authorities)
    # Nothing is kept open between two log-ins, and no redirect is followed to elsewhere.
    return httpx.Client(verify=context, timeout=_TIMEOUT_S, limits=httpx.Limits(max_keepalive_connections=0))


def _error_of(answer: Mapping[str, Any], status: int) -> str:
    return str(answer.get("error") or f"status {status}")[:80]
