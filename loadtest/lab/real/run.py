"""What a run with real cryptography takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import process_time
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from loadtest.lab.derivation import Opened
from loadtest.lab.transcript import Shape

Numbers = NDArray[np.object_]


@dataclass(frozen=True)
class Inputs:
    """
    Readings of one group in W, shape (slots, members), and a seed of 32 bytes for all keys of the run.

    `missing` is a member that falls silent when its readings are due, after keys were agreed on; None: nobody.
    `is_recorded` says whether payloads are wanted: of ciphertexts each has to be opened for that.
    """

    readings_w: NDArray[np.int64]
    seed: bytes
    missing: int | None = None
    is_recorded: bool = True

    @property
    def present(self) -> list[int]:
        """Positions of the members that send."""
        return [position for position in range(self.members) if position != self.missing]

    @property
    def slots(self) -> int:
        """How many slots."""
        return len(self.readings_w)

    @property
    def members(self) -> int:
        """How many members."""
        return int(self.readings_w.shape[1])


@dataclass(frozen=True)
class RealRun:
    """
    `payload[t, m]` is message m of slot t as whoever may read it reads it, `secrets[name][t]` a secret of the shape;
    None where the code that ran keeps it to itself, or where it was not asked for. `sums[t]` is what the EMP got,
    garbage included; with a member missing it is all that counts, the payload still lists what everybody would have
    sent. Costs are those of all parties: CPU seconds, payload bytes, and messages that one meter waits for in turn
    (`rounds`).
    """

    shape: Shape
    payload: Numbers | None
    secrets: Mapping[str, Numbers]
    sums: NDArray[np.float64]
    cpu_s: float
    sent_bytes: int
    rounds: int


class Stopwatch:
    """CPU seconds of this process between entry and exit."""

    cpu_s = 0.0

    def __enter__(self) -> Stopwatch:
        self._begin_s = process_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cpu_s += process_time() - self._begin_s


def opened_values(run: RealRun, inputs: Inputs, opened: Opened) -> list[int]:
    """
    What a coalition computes from the real numbers where the ideal model says that it can, by slot.

    Integers modulo the shape's modulus, the upper half negative. Raises ValueError for a run without its payload.
    """
    if run.payload is None:
        raise ValueError("this run does not tell its messages")
    modulus = run.shape.modulus
    values = []
    for slot in range(inputs.slots):
        total = sum(factor * int(run.payload[slot, message]) for message, factor in opened.messages.items())
        total -= sum(factor * int(run.secrets[name][slot]) for name, factor in opened.secrets.items())
        total -= sum(factor * int(inputs.readings_w[slot, position]) for position, factor in opened.own.items())
        residue = total % modulus
        values.append(residue - modulus if residue > modulus // 2 else residue)
    return values
