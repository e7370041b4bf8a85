"""The round ledger's keys of one epoch: with them it signs how rounds ended and what it asks members."""

from __future__ import annotations

from protocol.dcnet.crypto.suite import Suite, derive


class LedgerSecrets:
    """What the coordinator keeps secret for one epoch, grown from 32 bytes: the key comes back after a restart."""

    def __init__(self, suite: Suite, seed: bytes) -> None:
        result_seed = derive(seed, "book-ed25519")
        self._suite = suite
        self._result_secret = suite.signing_key(result_seed)
        self.result_key = suite.verify_key(result_seed)

    def sign(self, text: bytes) -> bytes:
        """The signature of a round's result, or of a question to a member, 64 bytes."""
        return self._suite.sign(self._result_secret, text)
