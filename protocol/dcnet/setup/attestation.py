"""
What binds commitments to the member that made them, on their way through a head to the round ledger.

A head that could name commitments of its own would have any total verified, and one that could swap two members'
would have honest bills refused.  So each member makes a MAC over its commitments for the round ledger alone, under a
key that it agrees on with the ledger once in an epoch.  The ledger holds the same key: the MAC convinces it and nobody
else, and says nothing of the values.
"""

from __future__ import annotations

import struct

from protocol.dcnet.crypto.suite import Suite, derive, digest
from protocol.dcnet.setup.rings import RingView


def attestation_text(view: RingView, round_: int, attempt: int, position: int, commitments: bytes) -> bytes:
    """What a member attests to, 32 bytes: epoch, ring, round, attempt, its position and its commitments."""
    numbers = struct.pack("<QQQQ", view.ring, round_, attempt, position)
    return digest("attestation", view.digest, numbers, commitments)


def attestation_key(suite: Suite, private: bytes, public: bytes, view: RingView, position: int) -> bytes:
    """
    The key of the member at `position` and the round ledger, from either one's private half, 32 bytes.

    Raises RemoteProtocolError for a public key of low order.
    """
    return derive(suite.agree(private, public, view.digest), "book-attestation", struct.pack("<Q", position))


class LedgerSecrets:
    """What the coordinator keeps secret for one epoch, grown from 32 bytes: both keys come back after a restart."""

    def __init__(self, suite: Suite, seed: bytes) -> None:
        self._suite = suite
        result_seed = derive(seed, "book-ed25519")
        self._result_secret = suite.signing_key(result_seed)
        self._attest_private = derive(seed, "book-x25519")
        self.result_key = suite.verify_key(result_seed)
        self.attest_key = suite.public_key(self._attest_private)

    def sign(self, text: bytes) -> bytes:
        """The signature of a round's result, 64 bytes."""
        return self._suite.sign(self._result_secret, text)

    def member_key(self, view: RingView, position: int) -> bytes:
        """The key that a member attests with.  Raises RemoteProtocolError for an epoch key of low order."""
        public = view.members[position].public_key
        return attestation_key(self._suite, self._attest_private, public, view, position)
