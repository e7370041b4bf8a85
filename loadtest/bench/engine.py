"""
The share engine and what a round costs one gateway: masks, key agreement, sharing, long vectors, and how it scales.

The limit is what the cipher gives: keystream bytes per second of one AES-256-CTR encryptor that writes into a buffer
that stays in the cache.
"""

from __future__ import annotations

from time import process_time

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from loadtest.bench.measure import Row, Spread, Target, cpu_us, pairs, samples
from loadtest.bench.peers import Peer, peer_python
from loadtest.bench.rounds import ROUNDS, Metered, play, ring_size
from loadtest.ring import LocalRing, RingSize, lay_out, random_vectors
from protocol import wire
from protocol.dcnet.crypto import prf, shamir
from protocol.dcnet.crypto.suite import StandardSuite, counter_block, derive, zeros
from protocol.dcnet.machines.masks import Fleet, MaskSchedule, self_mask, words_from_bytes
from protocol.dcnet.setup.rings import RingView
from protocol.dcnet.setup.secrets import EpochSecrets

LONG_WORDS = 16_000
FLAMINGO_S = 4.07
_KEY = bytes(range(32))
_FLOWER = "Flower 1.41"


def primitives(*, quick: bool = False) -> list[Row]:
    """The parts, ours against Flower's."""
    suite = StandardSuite()
    group = suite.group
    count = 5 if quick else 15
    private, public = derive(_KEY, "a"), suite.public_key(derive(_KEY, "b"))
    t, n = 7, 13
    coefficients = [int.from_bytes(derive(_KEY, "c", bytes([i]), size=64), "little") % group.order for i in range(1, t)]
    secret = 123456789
    dealt = shamir.deal(group, secret, t, list(range(1, n + 1)), coefficients)
    label = b"label"
    parts = {x: prf.partial(group, dealt.shares[x], label) for x in range(1, t + 1)}

    def mask(words: int) -> None:
        words_from_bytes(suite.keystream(_KEY, 0, 0, 8 * words))

    ours = {
        "mask of one pair, 8 words": (lambda: mask(8), {"do": "mask", "words": 8}, 2000, ""),
        "mask of one pair, 96 words": (lambda: mask(96), {"do": "mask", "words": 96}, 2000, "theirs is no cipher"),
        "key agreement of one pair": (
            lambda: suite.agree(private, public, _KEY), {"do": "agree"}, 100, "X25519; theirs is P-384",
        ),
        "share a key, 13 shares, t=7": (
            lambda: shamir.deal(group, secret, t, list(range(1, n + 1)), coefficients),
            {"do": "share", "size": 32, "threshold": t, "shares": n}, 20, "ours commits to it (Feldman), once an epoch",
        ),
        "open a self mask from 7 of 13": (
            lambda: prf.combine(group, parts), {"do": "combine", "size": 32, "threshold": t, "shares": n}, 20,
            "ours opens one round's mask, theirs the seed itself",
        ),
    }  # fmt: skip
    python = peer_python("flower")
    rows = []
    if python is None:
        for what, (work, _, times, note) in ours.items():
            mine = samples(lambda work=work, times=times: cpu_us(work, times), count)  # type: ignore[misc]
            rows.append(Row(what, "µs", mine, _FLOWER, note=note))
    else:
        with Peer(python, "flower_peer.py") as peer:
            for what, (work, order, times, note) in ours.items():
                mine, theirs, ratio = pairs(
                    lambda work=work, times=times: cpu_us(work, times),  # type: ignore[misc]
                    lambda order=order, times=times: 1e6 * peer.order(**order, times=times),  # type: ignore[misc]
                    count,
                )
                rows.append(Row(what, "µs", mine, _FLOWER, theirs, ratio, note=note))
    point = group.hash_to_group(b"bench", label)
    multiply = samples(lambda: cpu_us(lambda: group.multiply(secret, point), 100), count)
    return [*rows, Row("one group multiplication (a threshold-PRF evaluation)", "µs", multiply)]


class Share:
    """One member's share engine: its masks, a self mask's seed, and a contribution."""

    def __init__(self, k: int, words: int, n: int = 64, rounds: int = ROUNDS) -> None:
        self.suite = StandardSuite()
        size = RingSize(n, k, k // 2 + 1, k // 2 + 1, k // 2 + 1, n // 2 + 1, words=words, rounds=rounds)
        self.view, secrets = lay_out(self.suite, size, _KEY)
        secrets[0].bind(self.view, 0)
        self.secrets = secrets[0]
        (self.vector,) = random_vectors(np.random.default_rng(1), 1, words)

    def whole_us(self) -> float:
        """CPU time of the vector work of a share, the masks and the self mask made ahead among it; mean of an epoch."""
        begin = process_time()
        masks = MaskSchedule(self.suite, self.view, self.secrets)
        for round_ in range(self.view.rounds):
            masks.prepare(round_)
            masked = self_mask(self.suite, _KEY, self.view.word_count) + self.vector
            masks.add(masked, round_, 0, self.view.everybody)
        return 1e6 * (process_time() - begin) / self.view.rounds

    def ahead_us(self) -> float:
        """CPU time a round of the pairwise masks of all rounds."""
        begin = process_time()
        masks = MaskSchedule(self.suite, self.view, self.secrets)
        for round_ in range(self.view.rounds):
            masks.prepare(round_)
        return 1e6 * (process_time() - begin) / self.view.rounds

    def opening_us(self) -> float:
        """CPU time of what an OPEN leaves to do, of a round whose masks are there."""
        masks = MaskSchedule(self.suite, self.view, self.secrets)
        masks.prepare(0)
        mask = self_mask(self.suite, _KEY, self.view.word_count)

        def share() -> None:
            masked = mask + self.vector
            masks.add(masked, 0, 0, self.view.everybody)

        return cpu_us(share, 1000)


def keystream_rate(size: int = 1 << 16) -> float:
    """GB/s of AES-256-CTR from one encryptor into one buffer."""
    zeros, buffer = bytes(size), bytearray(size + 15)
    encryptor = Cipher(algorithms.AES(_KEY), modes.CTR(bytes(16))).encryptor()
    return size / cpu_us(lambda: encryptor.update_into(zeros, buffer), 1000) / 1e3


def fleet_masks(*, quick: bool = False) -> list[Row]:
    """The pairwise masks of a whole ring in one process: a pair's keystream made once against once for each end."""
    rows = []
    suite = StandardSuite()
    for k, words, rounds in ((14, 16, ROUNDS), (63, 16, ROUNDS), (14, LONG_WORDS, 4)):
        view, secrets = lay_out(suite, RingSize(64, k, k // 2 + 1, k // 2 + 1, k // 2 + 1, 33, words, rounds), _KEY)
        for position, each in enumerate(secrets):
            each.bind(view, position)

        def masks_us(fleet: Fleet | None, view: RingView = view, secrets: list[EpochSecrets] = secrets) -> float:
            begin = process_time()
            ring = [MaskSchedule(suite, view, each, fleet) for each in secrets]
            for round_ in range(view.rounds):
                for schedule in ring:
                    schedule.prepare(round_)
            return 1e6 * (process_time() - begin) / view.rounds / view.size

        bulk, single, ratio = pairs(
            lambda masks_us=masks_us: masks_us(Fleet()),  # type: ignore[misc]
            lambda masks_us=masks_us: masks_us(None),  # type: ignore[misc]
            3 if quick else 7,
        )
        rows.append(
            Row(
                f"masks of 64 gateways in one process, k={k}, {words:,} slots, a gateway and round", "µs", bulk,
                "each by itself", single, ratio, note="the same words",
            )
        )  # fmt: skip
    return rows


def vectors(*, quick: bool = False) -> list[Row]:
    """Shares and long vectors."""
    count = 5 if quick else 15
    limit = samples(keystream_rate, count)
    rows = [Row("the limit: AES-256-CTR keystream", "GB/s", limit, note="one encryptor, 64 KB into one buffer")]
    full = Share(63, 16)
    rows += [
        Row(
            "online share of 16 slots, k=63, with its part of the masks ahead of time", "µs",
            samples(full.whole_us, count), target=Target("ours", 20, at_least=False),
            note="vector work: pairwise masks, self mask from its seed, contribution",
        ),
        Row("  of it the pairwise masks ahead of time", "µs", samples(full.ahead_us, count), note="an epoch of 96"),
        Row("  of it left to do when the head opens", "µs", samples(full.opening_us, count)),
    ]  # fmt: skip
    long = Share(14, LONG_WORDS)
    octets = 8 * LONG_WORDS
    buffer = np.empty(LONG_WORDS + 2, dtype=np.uint64).data.cast("B")

    def stream_alone() -> None:
        long.suite.encryptor(_KEY, counter_block(0, 0)).update_into(zeros(octets), buffer)

    taken = [
        (octets / cpu_us(stream_alone, 300) / 1e3, 15 * octets / long.whole_us() / 1e3, keystream_rate())
        for _ in range(2 * count + 3)
    ][3:]
    mine = Spread.of([rate for _, rate, _ in taken])
    rows += [
        Row(
            f"share of {LONG_WORDS:,} words, k=14: keystream consumed", "GB/s", mine,
            "the same streams, unused", Spread.of([most for most, _, _ in taken]),
            Spread.of([rate / most for most, rate, _ in taken]), target=Target("ratio", 0.7, at_least=True),
            note="a key set up for each stream; the ratio is ours to theirs",
        ),
        Row(
            "  the same against the limit", "GB/s", mine, "the limit", Spread.of([most for _, _, most in taken]),
            Spread.of([rate / most for _, rate, most in taken]), target=Target("ratio", 0.7, at_least=True),
            note="the stricter reading: no key set up, 64 KB in the cache",
        ),
        *fleet_masks(quick=quick),
    ]  # fmt: skip
    size = ring_size(128, LONG_WORDS)
    silent = frozenset(range(1, 128, 15))
    server = [play(size, silent) for _ in range(2 if quick else 3)]
    rows.append(
        Row(
            f"server, n=128, {LONG_WORDS:,} words, 7 % silent", "ms", Spread.of([1e3 * each.head_s for each in server]),
            "Flamingo (quoted)", Spread.of([1e3 * FLAMINGO_S]), quoted=True,
            note="ours sums 64-bit words, theirs 32-bit; their figure was taken elsewhere at another time",
        )
    )  # fmt: skip
    return rows


def _of_one_gateway(size: RingSize) -> tuple[float, float]:
    """CPU µs of one member for one round, wire format included: its machine, and its 96th of the epoch's set-up."""
    begin = process_time()
    ring = LocalRing(StandardSuite(), size)
    for member in ring.members:
        member._place.masks.prepare(0)
    setup_s = process_time() - begin
    index = size.n // 2
    meter = Metered(ring.members[index])
    ring.members[index] = meter  # type: ignore[call-overload]
    messages: list[wire.Message] = []
    heard: list[wire.Message] = []

    def sent(position: int, message: wire.Message) -> bool:
        if position == index:
            messages.append(message)
        return False

    def trace(target: str, name: str, message: wire.Message) -> None:
        if target in {"member", "gateway"} and name == str(index):
            heard.append(message)

    ring.trace = trace
    ring.round(0, random_vectors(np.random.default_rng(3), size.n, size.words), sent)
    data = [wire.encode(message) for message in heard]
    allowed = wire.FROM_HEAD | wire.FROM_COORDINATOR
    wire_us = cpu_us(lambda: [wire.encode(message) for message in messages], 5)
    wire_us += cpu_us(lambda: [wire.decode(each, allowed) for each in data], 5)
    return 1e6 * meter.total_s + wire_us, 1e6 * setup_s / size.n / size.rounds


def _complete(n: int, words: int) -> RingSize:
    """A complete ring against 5 % corrupt members and a lying head."""
    threshold = (n - 1 + -(-n // 20)) // 2 + 1
    return RingSize(n, n - 1, threshold, threshold, threshold, n * 2 // 3, words=words, rounds=ROUNDS)


def gateway(*, quick: bool = False) -> list[Row]:
    """All that one gateway computes for one round."""
    count = 3 if quick else 7
    rows = []
    for name, size in (("default k=14", ring_size(64, 16)), ("complete, k=63", _complete(64, 16))):
        taken = [_of_one_gateway(size) for _ in range(count)]
        rows += [
            Row(
                f"all work of one gateway for one round, ring of 64, {name}, 16 slots", "µs",
                Spread.of([sum(each) for each in taken]), target=Target("ours", 1000, at_least=False),
                note="machine, wire format and a 96th of the epoch's set-up; without sockets and disk",
            ),
            Row(f"  of it a 96th of the epoch's set-up, {name}", "µs", Spread.of([each[1] for each in taken])),
        ]  # fmt: skip
    return rows


def scaling(*, quick: bool = False) -> list[Row]:
    """How the cost grows with n, k and the number of slots."""
    count = 2 if quick else 3
    rows = []
    for n in (32, 64, 128) if quick else (32, 64, 128, 256, 512):
        size = ring_size(n, 16)
        silent = frozenset(1 + index * n // max(1, n // 20) for index in range(max(1, n // 20)))
        taken = [play(size, silent) for _ in range(count)]
        rows.append(
            Row(f"head, n={n} (k={size.k}), 16 slots, 5 % silent", "ms", Spread.of([1e3 * e.head_s for e in taken]))
        )
        rows.append(Row(f"member, n={n} (k={size.k}), 16 slots", "µs", Spread.of([1e6 * e.member_s for e in taken])))
    for k in (8, 16, 32, 62):
        share = Share(k, 16)
        rows.append(
            Row(f"share engine, 16 slots, k={k}", "µs", Spread.of([share.whole_us() for _ in range(count + 2)]))
        )
    for words in (4, 16, 96, 1000, 10_000):
        share = Share(14, words)
        rows.append(
            Row(f"share engine, k=14, {words} slots", "µs", Spread.of([share.whole_us() for _ in range(count + 2)]))
        )
    return rows
