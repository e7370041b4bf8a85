"""
What an OPEN fixes for its attempt beside E: whoever helps to open a sum must have been told the very same.

The terms go into the round digest, so members that were told different ones do not confirm each other.  All but the
table of nonces goes into the self masks' labels as well, so that a neighbour's help in a recovery opens nothing that
was masked under other terms.  The table is left out there because the mask is prepared before E, and so the table of
E, is known; of the nonces the owner's own is in the label.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property, lru_cache

from protocol.dcnet.crypto.suite import digest


@dataclass(frozen=True)
class RoundTerms:
    """
    The terms of one attempt.

    `nonces` is the digest of the nonces of E (`machines.incarnations`); `settled` is how many rounds of the epoch have
    ended (q), `history` the digest of how they did (h_q), 32 bytes each.  `served` is V: who served since the last
    opened round, a bitmap as it travels.
    """

    nonces: bytes
    settled: int
    history: bytes
    served: bytes

    @cached_property
    def digest(self) -> bytes:
        """32 bytes over all terms: D in what is confirmed."""
        return terms_digest(self.nonces, self.of_masks)

    @cached_property
    def of_masks(self) -> bytes:
        """32 bytes over the terms that a self mask's label binds."""
        return mask_terms(self.settled, self.history, self.served)


# Both are public, and the same for all members of an attempt.
@lru_cache(maxsize=64)
def terms_digest(nonces: bytes, of_masks: bytes) -> bytes:
    """`RoundTerms.digest` of its two parts, for who is shown no more of the terms."""
    return digest("round-terms", nonces, of_masks)


@lru_cache(maxsize=64)
def mask_terms(settled: int, history: bytes, served: bytes) -> bytes:
    """`RoundTerms.of_masks`, for who prepares a mask before there is an attempt."""
    return digest("mask-terms", struct.pack("<Q", settled), history, served)


def history_before(epoch_digest: bytes) -> bytes:
    """h_0, 32 bytes: the history of an epoch of which no round has ended."""
    return digest("history", epoch_digest)


NO_TERMS = RoundTerms(b"", 0, b"", b"")
