"""
What a coalition can compute from the messages that it holds: one rule for every scheme.

It reads a payload that it received or sent itself, unless that is sealed for parties outside of it.  Readable payloads
are linear forms in readings and secrets; the secrets that no party of the coalition holds are eliminated (Gauss-Jordan
modulo a prime: all coefficients here are small).  The forms that are left, reduced, are what it learns and all that it
learns of uniformly distributed secrets: a combination in which an unknown mask remains is uniformly distributed itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from loadtest.lab.transcript import WAN, Message, Shape, meter
from protocol.errors import InvariantError

_PRIME = 2**31 - 1
_DENOMINATOR_MAX = 5000
_COEFFICIENT_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Opened:
    """
    One thing that a coalition can compute: a sum of readings, by position.

    `messages` combine to it; `secrets` and `own` (readings of corrupt members) are subtracted with these coefficients.
    `alias_of` is the message whose pseudonym the value carries; None: the members are known by name.
    """

    readings: Mapping[int, int]
    messages: Mapping[int, int]
    secrets: Mapping[str, int]
    own: Mapping[int, int]
    alias_of: int | None

    @property
    def is_single(self) -> bool:
        """Whether it is one household's reading."""
        return len(self.readings) == 1


def parties_of(coalition: frozenset[str], shape: Shape, target: int) -> frozenset[str]:
    """
    The parties behind the roles of a coalition, towards the member at position `target`.

    `left` and `right` are that member's neighbours in the ring; a role that is played by a member brings that member.
    """
    found = set(coalition - {"left", "right"})
    if "left" in coalition:
        found.add(meter((target - 1) % shape.size))
    if "right" in coalition:
        found.add(meter((target + 1) % shape.size))
    found |= {shape.played_by[role] for role in coalition if role in shape.played_by}
    return frozenset(found)


@lru_cache(maxsize=4096)
def derive(shape: Shape, parties: frozenset[str]) -> tuple[Opened, ...]:
    """All that the parties can compute about readings of others."""
    parties = parties - {WAN}
    readable = [i for i, message in enumerate(shape.messages) if _reads(message, parties)]
    known = {name for name, holders in shape.holders.items() if holders & parties}
    own = {position for position in range(shape.size) if meter(position) in parties}
    named = [i for i in readable if not shape.messages[i].alias]
    opened = _solve(shape, named, known, own)
    seen = {frozenset(each.readings.items()) for each in opened}
    if len(named) == len(readable):
        return tuple(opened)
    for each in _solve(shape, readable, known, own):
        if frozenset(each.readings.items()) not in seen:
            opened.append(replace(each, alias_of=_alias_of(shape, each)))
    return tuple(opened)


def _alias_of(shape: Shape, opened: Opened) -> int | None:
    """
    The pseudonym of a value, where nothing else tells whose it is.

    Who opens a message with a key that a meter sent under its own name, or that a corrupt meter holds, knows whose it
    is; a sum is known by its roster.
    """
    is_bare = opened.is_single and not opened.secrets and all(shape.messages[i].alias for i in opened.messages)
    return next(iter(opened.messages)) if is_bare else None


def _reads(message: Message, parties: frozenset[str]) -> bool:
    if message.sender not in parties and message.receiver not in parties:
        return False
    # The sender of a sealed envelope knows its content only where it made it: relays send what they cannot open.
    made = message.sender.startswith("meter:") and message.sender in parties
    return message.sealed_for is None or made or bool(message.sealed_for & parties)


def _solve(shape: Shape, rows: list[int], known: set[str], own: set[int]) -> list[Opened]:
    """The reduced basis of the combinations without unknown secrets."""
    single: dict[int, int] = {}
    rest = []
    for row in rows:
        form = shape.messages[row].form
        others = [position for position in form.readings if position not in own]
        if len(others) == 1 and form.readings[others[0]] == 1 and set(form.secrets) <= known:
            single.setdefault(others[0], row)
        else:
            rest.append(row)
    found = [_opened(shape, {row: 1}, known, own) for row in single.values()]
    secrets = sorted({name for row in rest for name in shape.messages[row].form.secrets if name not in known})
    columns = {name: index for index, name in enumerate(secrets)}
    # A reading that is read outright says nothing new as a part of a sum.
    positions = sorted(
        {p for row in rest for p in shape.messages[row].form.readings if p not in own and p not in single}
    )
    places = {position: len(secrets) + index for index, position in enumerate(positions)}
    if not positions:
        return found
    width = len(secrets) + len(positions)
    matrix = np.zeros((len(rest), width + len(rest)), np.int64)
    for index, row in enumerate(rest):
        form = shape.messages[row].form
        for name, coefficient in form.secrets.items():
            if name in columns:
                matrix[index, columns[name]] = coefficient % _PRIME
        for position, coefficient in form.readings.items():
            if position in places:
                matrix[index, places[position]] = coefficient % _PRIME
        matrix[index, width + index] = 1
    used = _reduce(matrix, 0, len(secrets), 0)
    end = _reduce(matrix, len(secrets), width, used)
    for line in matrix[used:end]:
        combination = {rest[i]: factor for i, factor in enumerate(_integers(line[width:])) if factor}
        found.append(_opened(shape, combination, known, own, single))
    return found


def _opened(
    shape: Shape, combination: dict[int, int], known: set[str], own: set[int], single: Mapping[int, int] | None = None
) -> Opened:
    """Collects what a combination of messages amounts to; readings known from `single` are subtracted."""
    for position, row in (single or {}).items():
        total = sum(c * shape.messages[r].form.readings.get(position, 0) for r, c in combination.items())
        if total:
            combination[row] = combination.get(row, 0) - total
    readings: dict[int, int] = {}
    secrets: dict[str, int] = {}
    for row, factor in combination.items():
        for position, coefficient in shape.messages[row].form.readings.items():
            readings[position] = readings.get(position, 0) + factor * coefficient
        for name, coefficient in shape.messages[row].form.secrets.items():
            secrets[name] = secrets.get(name, 0) + factor * coefficient
    secrets = {name: coefficient for name, coefficient in secrets.items() if coefficient}
    if not set(secrets) <= known:
        raise InvariantError("an unknown secret was not eliminated")
    return Opened(
        {p: c for p, c in sorted(readings.items()) if c and p not in own}, combination, secrets,
        {p: c for p, c in readings.items() if c and p in own}, None,
    )  # fmt: skip


def _integers(residues: NDArray[np.int64]) -> list[int]:
    """
    The integers, all small, that are these residues times one factor: elimination modulo a prime leaves fractions.

    Raises InvariantError where there are none, which schemes with small coefficients do not come to.
    """
    for factor in range(1, _DENOMINATOR_MAX):
        scaled = residues * factor % _PRIME
        signed = np.where(scaled > _PRIME // 2, scaled - _PRIME, scaled)
        if np.abs(signed).max() < _COEFFICIENT_MAX:
            return [int(value) for value in signed]
    raise InvariantError("the coefficients of a scheme's messages are too large to eliminate its secrets")


def _reduce(matrix: NDArray[np.int64], begin: int, end: int, row: int) -> int:
    """Gauss-Jordan on these columns with the rows from `row` on; the first row after the pivots."""
    for column in range(begin, end):
        candidates = np.flatnonzero(matrix[row:, column])
        if not len(candidates):
            continue
        pivot = row + int(candidates[0])
        matrix[[row, pivot]] = matrix[[pivot, row]]
        matrix[row] = matrix[row] * pow(int(matrix[row, column]), -1, _PRIME) % _PRIME
        others = np.flatnonzero(matrix[:, column])
        others = others[others != row]
        matrix[others] = (matrix[others] - matrix[others, column, None] * matrix[row] % _PRIME) % _PRIME
        row += 1
        if row == len(matrix):
            break
    return row
