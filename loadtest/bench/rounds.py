"""
Whole rounds: our ring in one process beside Flower's SecAgg+ round in one process.

Both sides run their real machines without a network.  96 slots, 5 % of the clients fall silent when their masked vector
is due.  Flower agrees on keys anew in every round and so do its servers recover them; our set-up is made once an epoch.
So there are two rows for the whole: one with a 96th of the set-up (a day of quarter hours, the default), and one that
charges a single round with all of it.

Ours runs the default parameters for 5 % corrupt members and heads that lie; Flower's numbers of shares and its
thresholds are those of an honest-but-curious server, so it has fewer neighbours and the easier task.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import median
from time import process_time
from typing import Any, cast

import numpy as np

from loadtest.bench.measure import Row, Spread, Target
from loadtest.bench.peers import Peer, peer_python
from loadtest.ring import LocalRing, RingSize, random_vectors
from protocol import wire
from protocol.dcnet.crypto.group import hash_to_edwards25519
from protocol.dcnet.crypto.suite import StandardSuite, signature_holds
from protocol.dcnet.machines.head import Head
from protocol.dcnet.machines.masks import Words
from protocol.dcnet.machines.member import Member
from protocol.dcnet.parameters.choice import choose

ROUNDS = 96
WORDS = 96
FRACTION = 0.05
FLOWER = {20: (13, 7), 100: (13, 7), 1000: (31, 17)}  # n: shares, threshold
PEER = "Flower 1.41 SecAgg+"


class Metered:
    """
    Stands before a machine and adds up the CPU time of its calls, by method and kind of message.

    The hash of the round's label and the check of its result's signature are public and a process keeps them; in the
    field each gateway is a process, so here each pays for its own.
    """

    def __init__(self, machine: object) -> None:
        self._machine = machine
        self.spent_s: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._machine, name)
        if not callable(attribute):
            return attribute

        def timed(*arguments: Any) -> Any:
            of_head = name == "receive" and len(arguments) == 3
            kind = type(arguments[of_head]).__name__ if name == "receive" else name
            if kind == "Open":
                hash_to_edwards25519.cache_clear()
            if kind == "Result":
                signature_holds.cache_clear()
            begin = process_time()
            try:
                return attribute(*arguments)
            finally:
                self.spent_s[kind] += process_time() - begin  # type: ignore[assignment]

        return timed

    @property
    def total_s(self) -> float:
        """All of it."""
        return sum(self.spent_s.values())


@dataclass(frozen=True, slots=True)
class Played:
    """CPU seconds of one round in one process, and what one member sent."""

    setup_s: float
    all_s: float
    head_s: float
    opening_s: float
    member_s: float
    up_octets: float


def ring_size(n: int, words: int = WORDS) -> RingSize:
    """The default parameters for 5 % corrupt and 5 % silent members."""
    chosen = choose(n, FRACTION, FRACTION)
    return RingSize(n, chosen.k, chosen.t, chosen.t_c, chosen.k_min, chosen.n_min, words=words, rounds=ROUNDS)


def play(size: RingSize, silent: frozenset[int], kind: type[wire.Message] = wire.MaskedInput) -> Played:
    """
    One round of a fresh ring in which the members `silent` vanish before they send a message of `kind`.

    The set-up is all that an epoch needs once: keys, deals and the masks of all rounds.  Raises ValueError where the
    ring does not open the exact sum.
    """
    begin = process_time()
    ring = LocalRing(StandardSuite(), size)
    for member in ring.members:
        member._place.masks.prepare(0)
    setup_s = process_time() - begin
    vectors = random_vectors(np.random.default_rng(7), size.n, size.words)
    meters = [Metered(member) for member in ring.members]
    head = Metered(ring.head)
    ring.members = cast(list[Member], meters)
    ring.head = cast(Head, head)
    sent: list[int] = [0] * size.n

    def vanish(position: int, message: wire.Message) -> bool:
        if position in silent and isinstance(message, kind):
            return True
        sent[position] += len(wire.encode(message))
        return False

    ended = ring.round(0, vectors, vanish)
    who = [i for i in range(size.n) if ended.roster >> i & 1]
    exact: Words = np.sum([vectors[i] for i in who], axis=0, dtype=np.uint64)
    expected = size.n - (len(silent) if kind is wire.MaskedInput else 0)
    if ended.outcome != wire.Outcome.OPENED or len(who) != expected or ended.total != tuple(exact.tolist()):
        raise ValueError("the ring did not open the exact sum of its roster")
    opening = ("Confirm", "Reveal", "Partial", "on_timer")
    return Played(
        setup_s=setup_s,
        all_s=head.total_s + sum(each.total_s for each in meters),
        head_s=head.total_s,
        opening_s=sum(head.spent_s[each] for each in opening),
        member_s=median(meters[i].total_s for i in who),
        up_octets=median(sent[i] for i in who),
    )


def dropped(n: int) -> frozenset[int]:
    """5 % of the members, evenly spread over the circle, none of them the head."""
    count = max(1, round(FRACTION * n))
    return frozenset(1 + index * n // count for index in range(count))


def rows(*, quick: bool = False) -> list[Row]:
    """All rows for n = 20, 100 and, unless `quick`, 1000 (some minutes, nearly all of them Flower's)."""
    python = peer_python("flower")
    out: list[Row] = []
    for n, count in ((20, 5), (100, 5), (1000, 1)):
        if quick and n == 1000:
            continue
        size, silent = ring_size(n), dropped(n)
        if n < 1000:
            play(size, silent)
        ours: list[Played] = []
        theirs: list[dict[str, Any]] = []
        if python is None:
            ours = [play(size, silent) for _ in range(count)]
        else:
            shares, threshold = FLOWER[n]
            with Peer(python, "flower_peer.py") as peer:
                for _ in range(count):
                    theirs.append(
                        peer.order(
                            do="round", n=n, shares=shares, threshold=threshold, words=WORDS, dropped=len(silent)
                        )
                    )
                    ours.append(play(size, silent))
        if not all(each["correct"] and each["opened"] == n - len(silent) for each in theirs):
            raise ValueError("the peer did not open the mean of its clients")
        out += _rows_of(n, size, ours, theirs)
        if n == 100:
            late = [play(size, silent, wire.Reveal) for _ in range(count)]
            out.append(
                Row(
                    "opening at the head, n=100, 5 % silent only after they confirmed", "ms",
                    Spread.of([1e3 * each.opening_s for each in late]),
                    note="each silent member recovered from t partial evaluations",
                )
            )  # fmt: skip
    return out


def _rows_of(n: int, size: RingSize, ours: list[Played], theirs: list[dict[str, Any]]) -> list[Row]:
    shares, threshold = FLOWER[n]
    numbers = f"ours k={size.k}, t={size.t}; Flower {shares} shares, t={threshold}"

    def row(what: str, mine: list[float], peer: list[float], *, unit: str = "ms", **more: Any) -> Row:
        ratio = Spread.of([b / a for a, b in zip(mine, peer, strict=True)]) if peer else None
        return Row(
            f"{what}, n={n}", unit, Spread.of(mine), PEER, Spread.of(peer) if peer else None, ratio,
            **({"note": numbers} | more),
        )  # fmt: skip

    everybody = [1e3 * each["all_s"] for each in theirs]
    stage_4 = [1e3 * each["server_s"][3] for each in theirs]
    return [
        row(
            "whole round, everybody, set-up spread over 96 rounds",
            [1e3 * (each.all_s + each.setup_s / ROUNDS) for each in ours],
            everybody,
        ),
        row(
            "whole round, everybody, all of the epoch's set-up in it",
            [1e3 * (each.all_s + each.setup_s) for each in ours],
            everybody,
        ),
        row("server (our head)", [1e3 * each.head_s for each in ours], [1e3 * sum(e["server_s"]) for e in theirs]),
        row(
            "opening at the head, Flower's stage 4",
            [1e3 * each.opening_s for each in ours],
            stage_4,
            target=Target("ratio", 500, at_least=True) if n == 100 else None,
        ),
        row(
            "one client, set-up spread over 96 rounds",
            [1e3 * (each.member_s + each.setup_s / ROUNDS / n) for each in ours],
            [1e3 * each["client_s"] for each in theirs],
        ),
        row(
            "epoch set-up of one gateway (Flower: the first two stages are in every round)",
            [1e3 * each.setup_s / n for each in ours],
            [],
        ),
        row(
            "one client sends",
            [each.up_octets for each in ours],
            [each["up_octets"] for each in theirs],
            unit="bytes",
            clock="",
        ),
    ]
