"""
D9 with answers: members that lose every round by silence towards its head, and answer the ledger when it asks.

In each attempt one of them sends no share, so that all owe words, and another no confirmation: three attempts take six
of them, and nobody has signed anything that is wrong.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loadtest.ring import LocalRing, RingSize, random_vectors
from loadtest.simulator.suite import CheapSuite
from protocol import wire

SIZE = RingSize(16, 15, 9, 9, 9, 10)
LIARS = (1, 2, 3, 4, 5, 6)
ROUNDS = 60


class SilentToHeads(LocalRing):
    """A ring in which the liars keep back what loses most, and as heads say of nobody that it was silent."""

    def to_head(self, position: int, message: wire.RingMessage) -> None:
        if not self._keeps_back(position, message):
            super().to_head(position, message)

    def to_coordinator(self, position: int, message: wire.Message) -> None:
        if position in LIARS and isinstance(message, wire.RingVoid):
            message = replace(message, silent=self.view.to_wire(0))
        super().to_coordinator(position, message)

    def _keeps_back(self, position: int, message: wire.RingMessage) -> bool:
        silent = [each for each in LIARS if self.head.current.expected >> each & 1]
        if len(silent) < 2:
            return False
        kept = {silent[0]: wire.MaskedInput, silent[1]: wire.Confirm}.get(position)
        return kept is not None and isinstance(message, kept)


def play(corrupt: int) -> list[wire.Outcome]:
    ring = SilentToHeads(CheapSuite(), SIZE)
    object.__setattr__(ring.view, "corrupt", corrupt)
    vectors = random_vectors(np.random.default_rng(5), SIZE.n, SIZE.words)
    outcomes = []
    for round_ in range(ROUNDS):
        for liar in LIARS:
            ring.from_member(liar, [ring.members[liar]._ready()])
        outcomes.append(ring.round(round_, vectors).outcome)
    assert ring.named == set()
    return outcomes


@pytest.mark.parametrize("corrupt", [0, 1, 3])
def test_who_is_silent_to_heads_alone_does_not_stop_a_ring(corrupt: int) -> None:
    """Two rounds for each head that lies, and two for each of the heads that it takes: at worst the half of these."""
    outcomes = play(corrupt)
    assert outcomes.count(wire.Outcome.VOID) <= ROUNDS / 2
    assert set(outcomes[-ROUNDS // 3 :]) == {wire.Outcome.OPENED}
