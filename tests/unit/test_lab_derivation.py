"""One rule says what a coalition can open: against known results, brute linear algebra, and the real cryptography."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.lab.derivation import derive, parties_of
from loadtest.lab.experiments.coalitions import exposures
from loadtest.lab.real import REAL, Inputs, opened_values
from loadtest.lab.real.run import RealRun
from loadtest.lab.schemes import SCHEMES
from loadtest.lab.schemes.sums import ring_shape
from loadtest.lab.transcript import EMP, HEAD, STORE, WAN, Form, Message, Shape, meter
from loadtest.lab.views import ROLES, exposure

READERS = {
    "plain": {"emp"},
    "pseudonyms-ttp": {"emp+ttp"},
    "pseudonyms-ttp-batched": {"emp+ttp"},
    "pseudonyms-tr03109": {"emp+gwa"},
    "sum-ttp": {"ttp"},
    "paillier": {"emp+store"},
    "vetter": {"authority+store"},
    "marmol": {"emp+head"},
    "marmol-rotated": set(),
    "kursawe": set(),
    "secagg": set(),
    "two-servers": {"ttp+store"},
    "ring": set(),
    "ring-noise": set(),
    "bill-ttp": {"ttp"},
    "bill-platform": set(),
    "bill-commitments": set(),
}


@pytest.mark.parametrize("name", READERS)
def test_coalitions_that_read_a_member_are_those_of_the_literature(name: str) -> None:
    found = [each for each in exposures(SCHEMES[name]) if each.kind == "named" and each.what == "reading"]
    assert {each.coalition for each in found} == READERS[name]


@pytest.mark.parametrize("name", [name for name, each in SCHEMES.items() if each.exact_sum])
def test_the_emp_of_an_exact_sum_gets_the_sum_of_all(name: str) -> None:
    opened = derive(SCHEMES[name].shape(9), frozenset({EMP}))
    assert [dict(each.readings) for each in opened] == [dict.fromkeys(range(9), 1)]


def test_a_head_whose_coalition_has_all_neighbours_reads_the_member() -> None:
    shape = ring_shape(9)
    everybody_else = frozenset(meter(i) for i in range(9) if i != 4)
    assert exposure(9, derive(shape, everybody_else | {HEAD}), 4) == ("named", 1)
    assert exposure(9, derive(shape, everybody_else - {meter(7)} | {HEAD}), 4) == ("sum", 2)


def test_corrupt_members_take_their_own_readings_out_of_a_sum() -> None:
    opened = derive(ring_shape(9), frozenset({EMP, meter(2), meter(5)}))
    assert exposure(9, opened, 4) == ("sum", 7)


def test_a_listener_reads_nothing_whomever_it_helps() -> None:
    for scheme in SCHEMES.values():
        shape = scheme.shape(9)
        assert derive(shape, frozenset({WAN})) == ()
        assert derive(shape, frozenset({WAN, EMP})) == derive(shape, frozenset({EMP}))


def test_a_mask_that_leaks_is_found() -> None:
    """The planted leak: one member's masks reach the store, by name of no scheme but by a message more."""
    shape = SCHEMES["kursawe"].shape(6)
    mine = shape.messages[2].form.secrets
    leaky = Shape(6, (*shape.messages, Message(meter(2), STORE, Form({}, mine))), shape.holders)
    assert exposure(6, derive(shape, frozenset({STORE})), 2) == ("sum", 6)
    assert exposure(6, derive(leaky, frozenset({STORE})), 2) == ("named", 1)
    assert exposure(6, derive(leaky, frozenset({STORE})), 3) == ("sum", 5)
    assert exposure(6, derive(leaky, frozenset({EMP})), 2) == ("sum", 6)


@given(st.data())
def test_as_many_forms_are_opened_as_linear_algebra_leaves(data: st.DataObject) -> None:
    members, secrets, count = 4, 4, data.draw(st.integers(1, 7))
    small = st.integers(-2, 2)
    forms = [
        Form(
            {i: c for i in range(members) if (c := data.draw(small))},
            {f"s{i}": c for i in range(secrets) if (c := data.draw(small))},
        )
        for _ in range(count)
    ]  # fmt: skip
    holders = {f"s{i}": frozenset({meter(i % members)}) for i in range(secrets)}
    shape = Shape(members, tuple(Message(meter(0), EMP, form) for form in forms), holders)
    opened = derive(shape, frozenset({EMP}))
    unknown = np.array([[form.secrets.get(f"s{i}", 0) for i in range(secrets)] for form in forms], float)
    readings = np.array([[form.readings.get(i, 0) for i in range(members)] for form in forms], float)
    expected = np.linalg.matrix_rank(np.hstack([unknown, readings])) - np.linalg.matrix_rank(unknown)
    assert len(opened) == expected


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return Inputs(np.random.default_rng(1).integers(0, 9000, (4, 9)), bytes(range(32)))


@pytest.fixture(scope="module", params=[name for name in REAL if name not in {"bill-commitments", "secagg"}])
def real(request: pytest.FixtureRequest, inputs: Inputs) -> RealRun:
    return REAL[request.param](inputs)


def test_the_real_numbers_open_to_what_the_ideal_model_says(real: RealRun, inputs: Inputs) -> None:
    """Every coalition of up to three, and all four of Mármol's claim: no combination opens to anything else."""
    tried = 0
    coalitions = [c for count in (1, 2, 3, 4) for c in combinations([role for role in ROLES if role != WAN], count)]
    for coalition in coalitions:
        for opened in derive(real.shape, parties_of(frozenset(coalition), real.shape, 4)):
            ideal = [sum(c * int(row[p]) for p, c in opened.readings.items()) for row in inputs.readings_w]
            assert opened_values(real, inputs, opened) == ideal, coalition
            tried += 1
    assert tried >= 60


def test_masked_numbers_are_no_readings(real: RealRun, inputs: Inputs) -> None:
    """What is not sealed and carries a secret is spread over the whole modulus."""
    assert real.payload is not None
    for index, message in enumerate(real.shape.messages):
        if message.form.secrets and message.form.readings and len(message.form.readings) == 1:
            assert all(int(value) > 10**9 for value in real.payload[:, index])


def test_the_real_sums_are_exact(real: RealRun, inputs: Inputs) -> None:
    assert real.sums.tolist() == inputs.readings_w.sum(axis=1).tolist()


def test_flower_adds_what_it_is_given(inputs: Inputs) -> None:
    run = REAL["secagg"](inputs)
    assert np.abs(run.sums - inputs.readings_w.sum(axis=1)).max() <= 1.0
    assert run.cpu_s > 0
    assert run.sent_bytes > 9 * 1000


@pytest.mark.parametrize(
    ("name", "opens"),
    [("paillier", True), ("vetter", True), ("two-servers", True), ("secagg", True), ("ring", True),
     ("kursawe", False), ("marmol", False), ("marmol-rotated", False)],
)  # fmt: skip
def test_a_silent_meter_costs_the_sum_where_masks_or_keys_are_fixed(inputs: Inputs, name: str, opens: bool) -> None:
    without = replace(inputs, missing=5)
    expected = np.delete(inputs.readings_w, 5, axis=1).sum(axis=1)
    assert bool(np.abs(REAL[name](without).sums - expected).max() <= 1.0) is opens


def test_commitments_open_to_the_bill(inputs: Inputs) -> None:
    run = REAL["bill-commitments"](inputs)
    prices = np.array([40, 30, 30, 30])
    assert run.sums.tolist() == (prices @ inputs.readings_w).tolist()


def test_keys_on_anonymous_messages_are_found_by_trying(inputs: Inputs) -> None:
    """Mármol's aggregator gives the EMP a member's key: of all anonymous messages one alone opens to a reading."""
    run = REAL["marmol"](inputs)
    assert run.payload is not None
    sealed = run.payload[0, -inputs.members :]
    for member in range(inputs.members):
        key = int(run.secrets[f"key:{member}"][0])
        opened = [(int(each) - key) % run.shape.modulus for each in sealed]
        plausible = [value for value in opened if value < 100_000]
        assert plausible == [int(inputs.readings_w[0, member])]


def test_unrotated_keys_let_the_emp_alone_follow_every_member(inputs: Inputs) -> None:
    """A key used twice cancels in the difference of its messages, and only in that of its own: the load's steps."""
    steps = {}
    for name in ("marmol", "marmol-rotated"):
        run = REAL[name](inputs)
        assert run.payload is not None
        first, second = (run.payload[slot, -inputs.members :] for slot in (0, 1))
        half = run.shape.modulus // 2
        found = [((int(b) - int(a) + half) % run.shape.modulus) - half for a in first for b in second]
        steps[name] = sorted(each for each in found if abs(each) < 100_000)
    own = inputs.readings_w[1] - inputs.readings_w[0]
    assert steps["marmol"] == sorted(own.tolist())
    assert steps["marmol-rotated"] == []
