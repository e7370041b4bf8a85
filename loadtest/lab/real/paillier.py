"""
Paillier's cryptosystem, several slots packed into one ciphertext; phe (GPL-3, in the lab's extra alone).

A slot has 21 bits: a sum of 64 households of 32 kW fits, and 96 slots fit into a modulus of 2048 bits.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.asymmetric import rsa
from phe import paillier

from loadtest.lab.real.run import Inputs, RealRun, Stopwatch
from loadtest.lab.schemes.sums import paillier_shape
from protocol.errors import StromkreisError

SLOT_BITS = 21
KEY_BITS = 2048
PACKED_MAX = (KEY_BITS - 32) // SLOT_BITS


def run(inputs: Inputs) -> RealRun:
    """Key pair of the EMP, a ciphertext of each meter, their product.  Raises StromkreisError if too large."""
    if inputs.slots > PACKED_MAX:
        raise StromkreisError(f"{inputs.slots} slots do not fit into one ciphertext; at most {PACKED_MAX}")
    if int(inputs.readings_w.sum(axis=1).max()) >= 1 << SLOT_BITS or int(inputs.readings_w.min()) < 0:
        raise StromkreisError(f"a sum of this group does not fit into {SLOT_BITS} bits: take a smaller group")
    with Stopwatch() as watch:
        public, private = _key_pair()
        # The raw functions: packed integers are no floating-point numbers, and phe's encoding would see them as such.
        sealed = [public.raw_encrypt(_pack(column)) for column in inputs.readings_w.T]
        product = 1
        for position in inputs.present:
            product = product * sealed[position] % public.nsquare
        sums = _unpack(private.raw_decrypt(product), inputs.slots)
    payload = None
    if inputs.is_recorded:
        shown = [_unpack(private.raw_decrypt(each), inputs.slots) for each in sealed]
        payload = np.array([*shown, sums], dtype=object).T
    sent = (inputs.members + 1) * KEY_BITS // 4
    return RealRun(
        paillier_shape(inputs.members), payload, {}, np.array(sums, np.float64), watch.cpu_s, sent, 1
    )  # fmt: skip


def _key_pair() -> tuple[paillier.PaillierPublicKey, paillier.PaillierPrivateKey]:
    """On the primes of an RSA key: OpenSSL finds two of equal length in a tenth of the time that phe takes."""
    primes = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS).private_numbers()
    public = paillier.PaillierPublicKey(primes.p * primes.q)
    return public, paillier.PaillierPrivateKey(public, primes.p, primes.q)


def _pack(readings_w: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> int:
    return sum(int(value) << SLOT_BITS * slot for slot, value in enumerate(readings_w))


def _unpack(number: int, slots: int) -> list[int]:
    return [number >> SLOT_BITS * slot & (1 << SLOT_BITS) - 1 for slot in range(slots)]
