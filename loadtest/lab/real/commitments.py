"""Billing by the project's Pedersen commitments: one a slot, and the bill opens a weighted sum of them."""

from __future__ import annotations

from hashlib import sha512

import numpy as np

from loadtest.lab.real.run import Inputs, RealRun, Stopwatch
from loadtest.lab.schemes.bills import bill_of_meter_shape
from protocol.dcnet.crypto.commitments import Pedersen, blinding_of
from protocol.dcnet.crypto.group import Edwards25519
from protocol.dcnet.crypto.suite import derive
from protocol.errors import InvariantError

PRICE = 30  # ct/kWh, and every fourth slot 10 more: a tariff that is not flat
_SURCHARGE = 10


def prices(slots: int) -> list[int]:
    """The tariff of the run, by slot."""
    return [PRICE + (_SURCHARGE if slot % 4 == 0 else 0) for slot in range(slots)]


def run(inputs: Inputs) -> RealRun:
    """Commit, bill, verify; `sums` are the amounts in ct W by member, one slot for the whole span."""
    group = Edwards25519()
    pedersen = Pedersen(group)
    tariff = prices(inputs.slots)
    amounts = []
    with Stopwatch() as watch:
        for member in range(inputs.members):
            key = derive(inputs.seed, "lab blinding", member.to_bytes(4, "big"))
            blindings = [
                blinding_of(group, uniform=sha512(key + slot.to_bytes(4, "big")).digest())
                for slot in range(inputs.slots)
            ]
            values = [int(value) for value in inputs.readings_w[:, member]]
            sealed = [pedersen.commit(value, blinding) for value, blinding in zip(values, blindings, strict=True)]
            amount = sum(price * value for price, value in zip(tariff, values, strict=True))
            opening = sum(price * blinding for price, blinding in zip(tariff, blindings, strict=True)) % group.order
            weighted = [group.multiply(price, each) for price, each in zip(tariff, sealed, strict=True)]
            if not pedersen.opens(pedersen.total(weighted), amount, opening):
                raise InvariantError("an honest bill does not open")
            amounts.append(amount)
    payload = np.array([amounts], dtype=object)
    sent = inputs.members * (inputs.slots * 32 + 96)
    return RealRun(
        bill_of_meter_shape(inputs.members), payload, {}, np.array(amounts, np.float64), watch.cpu_s, sent, 1
    )
