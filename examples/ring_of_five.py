"""
A ring of five gateways in one process, without a network: the operator reads the sum, and nobody a summand.

    python examples/ring_of_five.py

The machines are those of the product; `LocalRing` only carries their messages to and fro.
"""

import secrets

import numpy as np

from loadtest.ring import LocalRing, RingSize
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite

READINGS_WH = [312, 0, 1_048, 95, 671]  # of one quarter hour, at five homes


def main() -> None:
    """Play two rounds: one with everybody, and one in which a gateway falls silent after it has shared."""
    # Complete ring (k = 4), 3 neighbours recover or confirm; two words each: the constant 1 and the energy.
    size = RingSize(n=5, k=4, t=3, t_c=3, k_min=3, n_min=3, words=2)
    ring = LocalRing(StandardSuite(), size, seed=secrets.token_bytes(32))
    vectors = [np.array([1, energy_wh], dtype=np.uint64) for energy_wh in READINGS_WH]
    ring.trace = show

    ended = ring.round(0, vectors)
    print(f"everybody: {ended.total[1]} Wh from {ended.total[0]} gateways\n")
    assert ended.total == (5, sum(READINGS_WH))

    ended = ring.round(1, vectors, vanish=lambda who, message: who == 3 and isinstance(message, wire.Reveal))
    print(f"gateway 3 fell silent, its neighbours opened its mask: {ended.total[1]} Wh from {ended.total[0]} gateways")
    assert ended.total == (5, sum(READINGS_WH))


def show(_to: str, sender: str, message: wire.Message) -> None:
    """What gateway 2 gives away of its reading: words under masks."""
    if isinstance(message, wire.MaskedInput) and sender == "2":
        print(f"gateway 2 shares {np.frombuffer(message.vector, np.uint64).tolist()}")


if __name__ == "__main__":
    main()
