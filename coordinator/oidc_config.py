"""Section `[coordinator.oidc]`: the OpenID provider at which accounts may log in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from coordinator.config_section import ConfigSection


def _issuer(text: str) -> str:
    parts = urlsplit(text)
    is_local = parts.scheme == "http" and parts.hostname in {"127.0.0.1", "::1", "localhost"}
    if not parts.hostname or not (parts.scheme == "https" or is_local) or parts.query or parts.fragment:
        raise ValueError("an issuer of the form https://HOST/PATH (http on loopback only)")
    return text


class OidcConfig(ConfigSection):
    """Role gwa: the OpenID provider at which accounts may log in, beside those with passwords."""

    issuer: Annotated[str, AfterValidator(_issuer)]
    """Its issuer identifier, https://HOST/PATH exactly as its discovery document has it; http on loopback only."""

    client_id: Annotated[str, Field(min_length=1, max_length=255)]
    """Our id there. Register http://127.0.0.1/callback as redirect URI, for any port (RFC 8252, 7.3)."""

    client_secret: SecretStr | None = None
    """Our secret there; better from the environment (STROMKREIS_COORDINATOR__OIDC__CLIENT_SECRET) than from a file.
    None: a public client, by PKCE alone."""

    scope: str = "openid profile"
    """What is asked for; add what your provider wants for the claims below, such as groups."""

    name_claim: str = "preferred_username"
    """Claim that an account's name is taken from when it is made, in small letters."""

    role_claim: str = "groups"
    """Claim that the role depends on, a text or a list of them; a point goes one object down
    (realm_access.roles)."""

    roles: Annotated[dict[str, Literal["viewer", "operator", "administrator"]], Field(min_length=1)]
    """Role by value of that claim, for example {"grid-admins" = "administrator"}; the highest one counts, and who has
    none is refused. A change at the provider counts at the next log-in, after 12 hours at the latest."""

    authorities: Path | None = None
    """PEM file of the authorities that its certificate is checked by. None: those of the system."""
