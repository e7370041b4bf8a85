"""
What a gateway shows where it asks for profile sets: that it is this gateway, signed by its own key, now.

Whether a set waits for a gateway is the gateway's affair; so who asks proves who it is.  One proof is good for an hour:
a node asks every minute for many gateways, and neither it nor the administrator shall pay a signature for each.
"""

from __future__ import annotations

import base64
import re
from typing import Final, NamedTuple

from protocol.errors import RemoteProtocolError

VALID_S: Final = 3_600
"""For so long a proof is good; and so far the gateway's clock may be ahead."""
RENEWED_S: Final = VALID_S // 2
PROOF_SIZE_MAX: Final = 256
_PURPOSE: Final = b"stromkreis profile query 1\0"
_FORM: Final = re.compile(r"([0-9]{1,16})\.([A-Za-z0-9+/]{16,220}={0,2})")


class QueryProof(NamedTuple):
    """When it was made (Unix, ms), and the ECDSA signature (DER) over `query_text`."""

    at_ms: int
    signature: bytes

    def __str__(self) -> str:
        return f"{self.at_ms}.{base64.b64encode(self.signature).decode()}"

    def is_due(self, now_ms: int) -> bool:
        """Whether another one should be made."""
        return not 0 <= now_ms - self.at_ms < RENEWED_S * 1000


def query_text(gateway: str, at_ms: int) -> bytes:
    """What is signed."""
    return _PURPOSE + f"{gateway} {at_ms}".encode()


def read_proof(text: str, now_ms: int) -> QueryProof:
    """
    A proof that is good by its time; who signed it is not looked at.

    Raises RemoteProtocolError `bad_proof`, `old_proof`.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise RemoteProtocolError("bad_proof", "expected Unix time in ms, a point, and a signature in base64")
    try:
        proof = QueryProof(int(match[1]), base64.b64decode(match[2], validate=True))
    except ValueError:
        raise RemoteProtocolError("bad_proof", "expected a signature in base64") from None
    if abs(now_ms - proof.at_ms) > VALID_S * 1000:
        raise RemoteProtocolError("old_proof", f"made over {VALID_S} s from now: is the gateway's clock right?")
    return proof
