"""A deputy that saw nothing of the round that it takes over: its members tell it which attempt is next."""

import numpy as np
import pytest

from loadtest.ring import LocalRing, RingSize, random_vectors
from loadtest.simulator.suite import CheapSuite
from protocol import wire

SIZE = RingSize(n=7, k=6, t=4, t_c=4, k_min=4, n_min=4, rounds=4)


class DeafDeputy(LocalRing):
    """The first head's messages do not reach the next one."""

    def _deliver(self, target: str, index: int, message: wire.Message) -> None:
        if not (target == "member" and index == 1 and self.head.term == 0):
            super()._deliver(target, index, message)


@pytest.mark.parametrize("phase", [wire.MaskedInput, wire.Confirm], ids=lambda kind: kind.__name__)
def test_a_deputy_that_never_saw_the_round_opens_its_next_attempt(phase: type[wire.Message]) -> None:
    ring = DeafDeputy(CheapSuite(), SIZE)
    vectors = random_vectors(np.random.default_rng(1), SIZE.n, 4)
    ended = ring.round(0, vectors, lambda position, message: position == 0 and isinstance(message, phase))
    assert (ended.outcome, ended.term, ended.attempt) == (wire.Outcome.OPENED, 1, 1)
    assert ended.roster == 0b1111110
    assert ring.refused == []
    assert ended.total == tuple(map(int, sum(vectors[1:], np.zeros_like(vectors[0]))))
