"""
The self-mask seed of a member that did not reveal it, or revealed a wrong one, out of its neighbours' help.

The member committed to its seed in its MASKED_INPUT, so a seed that comes out right is known to be right, and one that
does not tells that somebody lied: a helper, the dealer of the shares, or the member in its commitment
(the last two are one).
Proofs tell the helpers' part, as far as the head holds the dealer's commitments, which its neighbours do:

- some proofs fail: those helpers' parts are put aside (`refuted`: the helper lied, or was dealt a bad share);
- t parts hold and do not give what was bound: the dealer lied (`is_dealers_lie`), and what they give is taken;
- its commitments are no group elements: the dealer lied, and they are done without;
- no commitments: of t + 1 helpers each is left out once, which finds one liar; with more of them nobody can be
  distinguished.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol.dcnet.crypto import prf, shamir
from protocol.dcnet.crypto.suite import Suite, mac_equal
from protocol.dcnet.machines.masks import seed_commitment
from protocol.dcnet.setup.rings import bitmap
from protocol.errors import RemoteProtocolError


@dataclass(slots=True)
class Recovery:
    """One member's recovery in one attempt; holders of shares are positions, sets of them bitmaps."""

    dealer: int
    t: int
    label: bytes
    seed_commitment: bytes
    commitments: tuple[bytes, ...] | None = None
    parts: dict[int, tuple[bytes, bytes]] = field(default_factory=dict, repr=False)
    refuted: int = 0
    is_dealers_lie: bool = False
    is_doubted: bool = False  # the round ledger has the parts, which gave nothing that fits
    seed: bytes = field(default=b"", repr=False)

    @property
    def helped(self) -> int:
        """Whose part has come, a bitmap."""
        return bitmap(list(self.parts)) | self.refuted

    @property
    def is_bound(self) -> bool:
        """Whether there is a seed, and it is the one that the member committed to."""
        return bool(self.seed) and mac_equal(seed_commitment(self.seed), self.seed_commitment)

    def help(self, suite: Suite, helper: int, element: bytes, proof: bytes, revealed: bytes) -> None:
        """
        A helper's part, a group element, and its proof; the first one of each helper counts.

        `revealed` is the seed that the member itself revealed and that does not fit its seed_commitment, or empty.
        """
        if self.seed or helper in self.parts or self.refuted >> helper & 1:
            return
        self.parts[helper] = element, proof
        if len(self.parts) < self.t or self._try(suite, [*self.parts][-self.t :], revealed):
            return
        if self.commitments is not None and self._put_aside(suite, self.commitments):
            holders = [*self.parts][: self.t]
            if len(holders) == self.t and not self._try(suite, holders, revealed):
                self.is_dealers_lie = True
                self.seed = self._combine(suite, holders)
        elif len(self.parts) == self.t + 1:
            self._leave_one_out(suite, revealed)

    def _combine(self, suite: Suite, holders: list[int]) -> bytes:
        parts = {x + 1: self.parts[x][0] for x in holders}
        return prf.mask_seed(prf.combine(suite.group, parts), self.label)

    def _try(self, suite: Suite, holders: list[int], revealed: bytes) -> bool:
        seed = self._combine(suite, holders)
        if mac_equal(seed_commitment(seed), self.seed_commitment):
            self.seed = seed
        elif mac_equal(seed, revealed):  # it said so itself: only its seed_commitment is wrong
            self.seed, self.is_dealers_lie = seed, True
        return bool(self.seed)

    def _put_aside(self, suite: Suite, commitments: tuple[bytes, ...]) -> bool:
        """Forget the parts whose proof fails; False where the commitments are none, and prove nothing but a lie."""
        try:
            keys = {helper: shamir.share_key(suite.group, commitments, helper + 1) for helper in self.parts}
        except RemoteProtocolError:
            self.commitments, self.is_dealers_lie = None, True
            return False
        for helper, (element, proof) in list(self.parts.items()):
            key = keys[helper]
            if not prf.verify_partial(suite.group, key, self.label, element, proof):
                del self.parts[helper]
                self.refuted |= 1 << helper
        return True

    def _leave_one_out(self, suite: Suite, revealed: bytes) -> None:
        """One liar among t + 1 helpers is the one without whom it fits."""
        for liar in self.parts:
            if self._try(suite, [helper for helper in self.parts if helper != liar], revealed):
                self.refuted |= 1 << liar
                return
