"""
Schemes whose keys are dealt or shared: Vetter et al., Mármol et al., two servers.

Keys are words of AES-256 in counter mode, ciphertexts readings plus keys modulo 2^64 (the additively homomorphic stream
cipher of Castelluccia et al. 2005, on which both papers build), shares elements of Prio3's Field64.
"""

from __future__ import annotations

import numpy as np

from loadtest.lab.real.masks import WORD_BYTES
from loadtest.lab.real.run import Inputs, Numbers, RealRun, Stopwatch
from loadtest.lab.schemes.sums import FIELD64, marmol_rotated_shape, marmol_shape, two_servers_shape, vetter_shape
from loadtest.lab.transcript import MODULUS
from protocol.dcnet.crypto.suite import StandardSuite, derive


def _streams(inputs: Inputs, purpose: str, count: int, modulus: int = MODULUS) -> Numbers:
    """Pseudo-random numbers below the modulus, shape (slots, count); 16 bytes each, so the bias is below 2^-64."""
    suite = StandardSuite()
    columns = []
    for index in range(count):
        key = derive(inputs.seed, purpose, index.to_bytes(4, "big"))
        stream = suite.keystream(key, 0, 0, 16 * inputs.slots)
        columns.append([int.from_bytes(stream[16 * t : 16 * t + 16], "little") % modulus for t in range(inputs.slots)])
    return np.array(columns, dtype=object).T.reshape(inputs.slots, count)


def _named(prefix: str, numbers: Numbers) -> dict[str, Numbers]:
    return {f"{prefix}:{index}": numbers[:, index] for index in range(numbers.shape[1])}


def run_vetter(inputs: Inputs) -> RealRun:
    """Keys of the authority, ciphertexts to the store, the key of the sum to the EMP."""
    with Stopwatch() as watch:
        keys = _streams(inputs, "lab vetter", inputs.members)
        sealed = (inputs.readings_w.astype(object) + keys) % MODULUS
        here = inputs.present  # the store says whose ciphertexts it added, the authority releases the sum of their keys
        total, key = sealed[:, here].sum(axis=1) % MODULUS, keys[:, here].sum(axis=1) % MODULUS
        sums = (total - key) % MODULUS
    payload = np.concatenate((keys, sealed, total[:, None], key[:, None]), axis=1)
    # Each meter gets one key of 32 bytes, from which both sides draw; the payload lists what it stands for.
    sent = inputs.members * 32 + (sealed.size + 2 * inputs.slots) * WORD_BYTES
    return RealRun(
        vetter_shape(inputs.members), payload, _named("key", keys), sums.astype(np.float64), watch.cpu_s, sent, 1
    )


def run_marmol(inputs: Inputs) -> RealRun:
    """The same key in every slot, as before the first rotation."""
    with Stopwatch() as watch:
        keys = np.repeat(_streams(inputs, "lab marmol", inputs.members)[:1], inputs.slots, axis=0)
        sealed = (inputs.readings_w.astype(object) + keys) % MODULUS
        key = keys.sum(axis=1) % MODULUS
        sums = (sealed[:, inputs.present].sum(axis=1) - key) % MODULUS
    payload = np.concatenate((keys, key[:, None], sealed), axis=1)
    sent = (inputs.members + 1 + sealed.size) * WORD_BYTES
    return RealRun(
        marmol_shape(inputs.members), payload, _named("key", keys), sums.astype(np.float64), watch.cpu_s, sent, 1
    )


def run_marmol_rotated(inputs: Inputs) -> RealRun:
    """A rotation in every slot: each member's key loses what its successor's gains, so far."""
    with Stopwatch() as watch:
        keys = np.repeat(_streams(inputs, "lab marmol", inputs.members)[:1], inputs.slots, axis=0)
        steps = np.cumsum(_streams(inputs, "lab marmol rotation", inputs.members), axis=0) % MODULUS
        current = (keys + np.roll(steps, 1, axis=1) - steps) % MODULUS
        sealed = (inputs.readings_w.astype(object) + current) % MODULUS
        key = keys.sum(axis=1) % MODULUS
        sums = (sealed[:, inputs.present].sum(axis=1) - key) % MODULUS
    payload = np.concatenate((keys, key[:, None], steps, sealed), axis=1)
    sent = (inputs.members + 1 + 2 * sealed.size) * WORD_BYTES
    secrets = _named("key", keys) | _named("offset", steps)
    return RealRun(
        marmol_rotated_shape(inputs.members), payload, secrets, sums.astype(np.float64), watch.cpu_s, sent, 2
    )


def run_two_servers(inputs: Inputs) -> RealRun:
    """The helper's share from a seed, the leader's is the rest, modulo Field64's prime."""
    with Stopwatch() as watch:
        shares = _streams(inputs, "lab helper share", inputs.members, FIELD64)
        leader = (inputs.readings_w.astype(object) - shares) % FIELD64
        here = inputs.present
        first, second = leader[:, here].sum(axis=1) % FIELD64, shares[:, here].sum(axis=1) % FIELD64
        sums = (first + second) % FIELD64
    payload = np.concatenate((leader, shares, first[:, None], second[:, None]), axis=1)
    sent = leader.size * WORD_BYTES + inputs.members * 32 + 2 * inputs.slots * WORD_BYTES
    return RealRun(
        two_servers_shape(inputs.members), payload, _named("share", shares), sums.astype(np.float64), watch.cpu_s, sent,
        1,
    )  # fmt: skip
