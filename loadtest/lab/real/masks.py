"""Pairwise masks (Kursawe, Danezis, Kohlweiss, PETS 2011): X25519, HKDF and AES-256 in counter mode."""

from __future__ import annotations

import numpy as np

from loadtest.lab.real.run import Inputs, Numbers, RealRun, Stopwatch
from loadtest.lab.schemes.sums import kursawe_shape
from loadtest.lab.transcript import MODULUS
from protocol.dcnet.crypto.suite import StandardSuite, derive

WORD_BYTES = 8


def run_kursawe(inputs: Inputs) -> RealRun:
    """Key agreement of all pairs, masks of all slots, sums."""
    suite, n = StandardSuite(), inputs.members
    shape = kursawe_shape(n)
    with Stopwatch() as watch:
        private = [derive(inputs.seed, "lab member", index.to_bytes(4, "big")) for index in range(n)]
        public = [suite.public_key(each) for each in private]
        secrets: dict[str, Numbers] = {}
        for low in range(n):
            for high in range(low + 1, n):
                key = suite.agree(private[low], public[high], b"lab kursawe")
                stream = suite.keystream(key, 0, 0, -(-WORD_BYTES * inputs.slots // 16) * 16)
                words = np.frombuffer(stream, "<u8")[: inputs.slots]
                secrets[f"mask:{low}:{high}"] = words.astype(object)
        masked = inputs.readings_w.astype(object)
        for name, words in secrets.items():
            _, low_, high_ = name.split(":")
            masked[:, int(low_)] += words
            masked[:, int(high_)] -= words
        masked %= MODULUS
        # Masks towards a missing meter stay in: the scheme has nothing that would take them out.
        sums = masked[:, inputs.present].sum(axis=1) % MODULUS
    payload = np.concatenate((masked, sums[:, None]), axis=1)
    sent = n * (n - 1) * 32 + payload.size * WORD_BYTES
    # Every pair agrees at both ends in the field; here the key is computed once for both.
    return RealRun(shape, payload, secrets, sums.astype(np.float64), 2 * watch.cpu_s, sent, 2)
