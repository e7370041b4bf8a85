"""What the simulated network and the simulated power supply do to a ring."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Faults:
    """
    Rates are probabilities: `loss`, `duplicate` per message, `crash` per gateway and round, `ledger_crash` per round.

    A ledger that crashes is there again at once, from what is durable and some terms later.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    delay_s: float = 0.02  # mean; exponential, so messages overtake each other
    crash: float = 0.0
    ledger_crash: float = 0.0
    down_s: float = 15.0  # mean time until a crashed gateway is back
    rollback: float = 0.0  # per crash: the gateway comes back with an older copy of its disk
    clog: float = 0.0  # per round: some ways are blocked for a while, then everything arrives at once

    def deliveries(self, random: Random) -> list[float]:
        """The delays after which copies of a message arrive; none where it is lost."""
        if self.loss and random.random() < self.loss:
            return []
        delays = [random.expovariate(1 / self.delay_s)]
        if self.duplicate and random.random() < self.duplicate:
            delays.append(random.expovariate(1 / self.delay_s) * 20)
        return delays

    def downtime_s(self, random: Random) -> float:
        """How long a crash lasts."""
        return min(random.expovariate(1 / self.down_s), 3 * self.down_s)


CALM = Faults()
