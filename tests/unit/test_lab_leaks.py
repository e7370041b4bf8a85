"""A leak that is planted in a scheme is found by each attack, and is not seen in the scheme without it."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from loadtest.lab import metrics
from loadtest.lab.experiments import ATTACKS, billing, curves, links, rosters
from loadtest.lab.experiments.games import Game
from loadtest.lab.metrics import Estimate
from loadtest.lab.schemes import SCHEMES, Scheme
from loadtest.lab.schemes.direct import batched_pseudonyms_shape, third_party_sum_shape
from loadtest.lab.schemes.sums import ring_shape
from loadtest.lab.settings import SMOKE, Lab, Row
from loadtest.lab.transcript import EMP, TTP, Form, Message, Shape, meter

GROUP = 20
GAME = 40
Scores = tuple[Estimate, Estimate]
"""With the view, and blind."""


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab(replace(SMOKE, households=80, targets=30, trials=120, iterations=15, group_size=GROUP))


def with_more(shape: Shape, *more: Message) -> Shape:
    return replace(shape, messages=(*shape.messages, *more))


@lru_cache(maxsize=8)
def readings_beside_the_sum(n: int) -> Shape:
    return with_more(third_party_sum_shape(n), *(Message(meter(i), EMP, Form({i: 1})) for i in range(n)))


@lru_cache(maxsize=8)
def readings_beside_the_ring(n: int) -> Shape:
    return with_more(ring_shape(n), *(Message(meter(i), EMP, Form({i: 1})) for i in range(n)))


@lru_cache(maxsize=8)
def pseudonyms_beside_the_sum(n: int) -> Shape:
    return with_more(third_party_sum_shape(n), *(Message(TTP, EMP, Form({i: 1}), alias=True) for i in range(n)))


@lru_cache(maxsize=8)
def a_batch_that_is_none(n: int) -> Shape:
    """A third party that says it batches and forwards each message when it comes."""
    shape = batched_pseudonyms_shape(n)
    return replace(
        shape, messages=tuple(
            replace(each, after=(index - n,)) if each.after else each for index, each in enumerate(shape.messages)
        ),
    )  # fmt: skip


@lru_cache(maxsize=8)
def bill_of_all(n: int) -> Shape:
    return Shape(n, (Message(TTP, EMP, Form(dict.fromkeys(range(n), 1))),))


@lru_cache(maxsize=8)
def amounts_beside_the_bill_of_all(n: int) -> Shape:
    return with_more(bill_of_all(n), *(Message(TTP, EMP, Form({i: 1})) for i in range(n)))


def the_row(rows: list[Row], **wanted: object) -> Scores:
    (row,) = [
        row for row in rows
        if all(getattr(row, key, None) == value or row.parameters.get(key) == value for key, value in wanted.items())
    ]  # fmt: skip
    return row.estimate, row.blind


def distance(lab: Lab, scheme: Scheme) -> Scores:
    return the_row(curves.distances(lab, scheme, 60, GROUP), metric="mutual_information_bits")


def hart(lab: Lab, scheme: Scheme) -> Scores:
    return the_row(curves.appliances(lab, scheme, 60, GROUP), attack="hart", appliance="COOKINGSTOVE")


def classifier(lab: Lab, scheme: Scheme) -> Scores:
    return the_row(curves.appliances(lab, scheme, 60, GROUP), attack="classifier", appliance="DISHWASHER")


def occupancy(lab: Lab, scheme: Scheme) -> Scores:
    return the_row(curves.occupancy(lab, scheme, 60, GROUP), attack="occupancy")


def linkage(lab: Lab, scheme: Scheme) -> Scores:
    return the_row(links.by_habits(lab, scheme), days=1)


def timing(lab: Lab, scheme: Scheme) -> Scores:
    return the_row(links.by_timing(lab, scheme), slots=96)


def bills(lab: Lab, scheme: Scheme) -> Scores:
    return the_row(links.by_bills(lab, scheme), metric="top1", resolution_wh=1)


def identification(lab: Lab, scheme: Scheme) -> Scores:
    found = Game(lab, 900, 1, scheme=scheme).identification(GAME, 120)
    return found["view"], found["blind"]


def membership(lab: Lab, scheme: Scheme) -> Scores:
    inside, outside = Game(lab, 900, 1, scheme=scheme).member_scores(GAME, 120)
    both = np.random.default_rng(1).permutation(np.concatenate((inside, outside)))
    rng = np.random.default_rng(2)
    return (
        metrics.true_positives_at(0.01, inside, outside, rng),
        metrics.true_positives_at(0.01, both[:120], both[120:], rng),
    )


def next_round_without(lab: Lab, scheme: Scheme) -> Scores:
    row = rosters.plain_row(lab, lab.at(900)[0], 24, scheme.shape)
    return row.estimate, row.blind


def designed_rosters(lab: Lab, scheme: Scheme) -> Scores:
    alternating = [each for each in rosters.DESIGNED if each[0] == "every second round, returns not limited"]
    return the_row(rosters.designed_rows(lab, scheme.shape, alternating), members=30)


def tariff(lab: Lab, scheme: Scheme) -> Scores:
    return the_row(billing.tariff_rows(lab, [scheme]), tariff="one interval dearer", rules="no rules")


TOTAL, RING = SCHEMES["sum-ttp"], SCHEMES["ring"]
BATCHED, BILLED = SCHEMES["pseudonyms-ttp-batched"], replace(SCHEMES["bill-ttp"], bill=bill_of_all)
NAMED = replace(TOTAL, shape=readings_beside_the_sum)
ALIASED = replace(TOTAL, shape=pseudonyms_beside_the_sum)
NAMED_RING = replace(RING, shape=readings_beside_the_ring)
LEAKS: dict[str, list[tuple[Callable[[Lab, Scheme], Scores], Scheme, Scheme]]] = {
    "distance": [(distance, TOTAL, NAMED)],
    "hart": [(hart, TOTAL, NAMED)],
    "classifier": [(classifier, TOTAL, NAMED)],
    "occupancy": [(occupancy, TOTAL, NAMED)],
    "linkage": [(linkage, TOTAL, ALIASED)],
    "timing": [(timing, BATCHED, replace(BATCHED, shape=a_batch_that_is_none))],
    "bills": [(bills, TOTAL, ALIASED)],
    "identification": [(identification, TOTAL, each) for each in (NAMED, ALIASED)],
    "membership": [(membership, TOTAL, each) for each in (NAMED, ALIASED)],
    "differencing": [(each, RING, NAMED_RING) for each in (next_round_without, designed_rosters)],
    "tariff": [(tariff, BILLED, replace(BILLED, bill=amounts_beside_the_bill_of_all))],
}
"""Of each attack: how it is scored, a scheme, and the same scheme with the leak."""


def test_every_attack_has_a_planted_leak() -> None:
    assert set(LEAKS) == set(ATTACKS) - {"utility"}


@pytest.mark.parametrize(
    ("attack", "sound", "leaky"),
    [
        pytest.param(*leak, id=f"{name}-{leak[0].__name__}-{leak[2].shape.__name__}")
        for name, leaks in LEAKS.items()
        for leak in leaks
    ],
)
def test_a_planted_leak_is_found(
    lab: Lab, attack: Callable[[Lab, Scheme], Scores], sound: Scheme, leaky: Scheme
) -> None:
    found, blind = attack(lab, leaky)
    assert found.low > blind.value
    without_leak, _ = attack(lab, sound)
    if without_leak.count:
        assert found.value > without_leak.high
        assert found.low > without_leak.value
