"""
The schemes with their real cryptography, for one group and some slots: what the ideal model claims, in numbers.

Each fills the messages of a scheme's shape with what was really sent, as its reader reads it, so that the combinations
that `derivation` finds can be tried on them; and each says what it cost.
"""

from __future__ import annotations

from collections.abc import Callable

from loadtest.lab.real import commitments, keys, masks, paillier, ring_machines, secagg
from loadtest.lab.real.run import Inputs, RealRun, opened_values

REAL: dict[str, Callable[[Inputs], RealRun]] = {
    "paillier": paillier.run,
    "vetter": keys.run_vetter,
    "marmol": keys.run_marmol,
    "marmol-rotated": keys.run_marmol_rotated,
    "kursawe": masks.run_kursawe,
    "secagg": secagg.run,
    "two-servers": keys.run_two_servers,
    "ring": ring_machines.run,
    "bill-commitments": commitments.run,
}

__all__ = ["REAL", "Inputs", "RealRun", "opened_values"]
