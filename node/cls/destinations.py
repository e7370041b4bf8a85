"""Which proxy profile a controllable system means, by who it is and what it asks for (chapter 11.3.2)."""

from __future__ import annotations

from datetime import datetime
from ipaddress import ip_address

from protocol.profiles.communication import ProxyProfile
from protocol.profiles.profile_set import ProfileSet
from protocol.socks_tls import Destination


def system_of(profiles: ProfileSet | None, fingerprint: str, moment: datetime) -> str | None:
    """The controllable system with this certificate (SHA-256, hexadecimal) by a HAN profile that is valid, or None."""
    for each in () if profiles is None else profiles.han:
        if each.role == "cls" and each.certificate == fingerprint and each.is_valid_at(moment):
            return each.user
    return None


def proxy_of(profiles: ProfileSet | None, system: str, wanted: Destination, moment: datetime) -> ProxyProfile | None:
    """
    The system's valid profile that it may begin by itself, for what a CONNECT names; None where there is none.

    By name it is the localServerName, the port is not looked at; by address the participant's, with its port.
    """
    for each in () if profiles is None else profiles.proxy:
        if each.cls == system and "cls" in each.initiators and each.is_valid_at(moment) and _is_named(each, wanted):
            return each
    return None


def _is_named(profile: ProxyProfile, wanted: Destination) -> bool:
    if isinstance(wanted.host, str):
        return wanted.local_name == profile.server_name
    host, port = profile.endpoint
    try:
        return (ip_address(host), port) == (wanted.host, wanted.port)
    except ValueError:  # the profile has a name
        return False
