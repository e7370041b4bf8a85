"""What a gateway signs when it leaves for good: the statement that has its administrator revoke it."""

from __future__ import annotations

from typing import Final

_DOMAIN: Final = "stromkreis: this gateway leaves for good"


def leave_statement(gateway_id: str) -> bytes:
    """
    The octets under the detached CMS signature of the gateway's signature key.

    They say nothing of a time: who shows them a second time changes nothing.
    """
    return f"{_DOMAIN}\0{gateway_id}".encode("ascii")
