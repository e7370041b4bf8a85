"""
What the ideal model says of groups of three to 64, with everybody there and with one silent, holds of the real numbers.

SecAgg+ is left out: Flower keeps its messages to itself.
"""

from dataclasses import replace

import numpy as np
import pytest

from loadtest.lab.derivation import derive, parties_of
from loadtest.lab.real import REAL, Inputs, opened_values
from loadtest.lab.real.run import RealRun
from loadtest.lab.transcript import AUTHORITY, EMP, GWA, HEAD, WAN, Form, Message, Shape, meter
from loadtest.lab.views import ROLES

SIZES = {
    "paillier": (3, 8),  # each ciphertext costs a tenth of a second
    "vetter": (3, 16, 64),
    "marmol": (3, 16, 64),
    "marmol-rotated": (3, 16, 64),
    "kursawe": (3, 16, 64),
    "two-servers": (3, 16, 64),
    "ring": (5, 16, 64),  # no ring is made of fewer
}
KEYS_AGREED = frozenset({"marmol", "marmol-rotated"})
"""Where a member has sent its keys before it falls silent."""
SLOTS = 2
COALITIONS = 12


def less(form: Form, lost: list[Form]) -> Form:
    readings, secrets = dict(form.readings), dict(form.secrets)
    for each in lost:
        for position, factor in each.readings.items():
            readings[position] = readings.get(position, 0) - factor
        for name, factor in each.secrets.items():
            secrets[name] = secrets.get(name, 0) - factor
    return Form({p: c for p, c in readings.items() if c}, {s: c for s, c in secrets.items() if c})


def with_one_silent(name: str, run: RealRun, missing: int) -> RealRun:
    """
    The same run in the messages that a slot has where `missing` is silent.

    Who adds, adds what came. Vetter's authority leaves the key of a missing ciphertext out; a ring's head gets the
    masks that the others have in common with the missing member, not that member's self mask.
    """
    assert run.payload is not None
    shape = run.shape
    gone = [
        index for index, each in enumerate(shape.messages)
        if each.sender == meter(missing) and (each.form.readings or name not in KEYS_AGREED)
    ]  # fmt: skip
    kept = [index for index in range(len(shape.messages)) if index not in gone]
    messages = []
    for each in (shape.messages[index] for index in kept):
        lost = [shape.messages[index].form for index in gone if shape.messages[index].receiver == each.sender]
        if (each.sender, each.receiver) == (AUTHORITY, EMP):
            lost = [Form({}, {f"key:{missing}": 1})]
        if each.sender in {HEAD, GWA} and name == "ring":
            lost = [Form({missing: 1})]
        messages.append(replace(each, form=less(each.form, lost)))
    columns = [run.payload[:, index] for index in kept]
    if name == "ring":
        for mask in (each for each in shape.holders if str(missing) in each.split(":")[1:] and each[:4] == "mask"):
            _, low, high = mask.split(":")
            other = int(high) if int(low) == missing else int(low)
            messages.append(Message(meter(other), HEAD, Form({}, {mask: 1})))
            columns.append(run.secrets[mask])
    indices = {old: new for new, old in enumerate(kept)}
    messages = [
        replace(each, after=tuple(indices[before] for before in each.after if before in indices)) for each in messages
    ]
    changed = Shape(shape.size, tuple(messages), shape.holders, shape.played_by, shape.modulus)
    return replace(run, shape=changed, payload=np.stack(columns, axis=1))


def coalitions(size: int, target: int, rng: np.random.Generator) -> list[tuple[frozenset[str], frozenset[str]]]:
    """Up to four roles with up to three corrupt members each, and every role with all members but two."""
    roles = [each for each in ROLES if each != WAN]
    others = [each for each in range(size) if each != target]
    drawn = []
    for _ in range(COALITIONS):
        with_roles = rng.choice(roles, int(rng.integers(1, 5)), replace=False)
        corrupt = rng.choice(others, min(int(rng.integers(4)), size - 2), replace=False)
        drawn.append((frozenset(with_roles.tolist()), frozenset(map(meter, corrupt.tolist()))))
    return [*drawn, *((frozenset({role}), frozenset(map(meter, others[1:]))) for role in roles)]


@pytest.mark.parametrize("is_silent", [False, True], ids=["all", "one-silent"])
@pytest.mark.parametrize(("name", "size"), [(name, size) for name, sizes in SIZES.items() for size in sizes])
def test_real_numbers_open_to_what_the_model_says(name: str, size: int, is_silent: bool) -> None:
    rng = np.random.default_rng((size, is_silent))
    missing = size - 1 if is_silent else None
    inputs = Inputs(rng.integers(0, 9000, (SLOTS, size)), bytes(range(32)), missing)
    run = REAL[name](inputs)
    if missing is not None:
        run = with_one_silent(name, run, missing)
    target = int(rng.integers(size - 1))
    tried = 0
    for roles, members in coalitions(size, target, rng):
        for opened in derive(run.shape, parties_of(roles, run.shape, target) | members):
            ideal = [sum(c * int(row[p]) for p, c in opened.readings.items()) for row in inputs.readings_w]
            assert opened_values(run, inputs, opened) == ideal, (roles, members)
            tried += 1
    assert tried
    alone = [len(opened.readings) for opened in derive(run.shape, frozenset({EMP}))]
    is_lost = is_silent and name in KEYS_AGREED | {"kursawe"}
    assert alone == ([] if is_lost else [len(inputs.present)])
