"""
What a combination of views determines, by linear algebra: the check on `model`, and on revealing net masks only.

Unknown are all readings, self masks and pairwise masks. The head holds the shares, the opened self masks, and from
every member that confirmed either each mask towards those outside of its roster or (`net`) one signed sum of them. A
combination with factors a (shares) and c (net sums) tells something about readings alone if every unknown mask
cancels. All such combinations are the null space of a matrix, computed exactly modulo a prime.

Net sums are a function of the single masks, so they can only tell less; how much less is seen where a member has two
or more neighbours outside of its roster that received another one.
"""

from loadtest.exhaustive.model import Ring

_PRIME = 2**61 - 1


def determined(ring: Ring, views: tuple[int, ...], closed: int, *, net: bool) -> tuple[tuple[int, ...], ...]:
    """
    A reduced basis of the determined combinations, each as the honest members' factors mod 2^61 - 1.

    `views` are the rosters shown (0: none), `closed` the members with a closed self mask, as bitmasks; all took part.
    """
    honest = ring.honest
    column = {i: at for at, i in enumerate(honest)}
    width = 2 * len(honest)
    rows = []
    for i in honest:
        if closed >> i & 1:
            rows.append(_row(width, {column[i]: 1}))
        if not net or not views[i]:
            rows.append(_row(width, {column[i] + len(honest): 1}))
    for i in honest:
        for j in ring.neighbours(i):
            if i < j and j not in ring.corrupt:
                told_i = bool(views[i]) and not views[i] >> j & 1
                told_j = bool(views[j]) and not views[j] >> i & 1
                if net:
                    row = {column[i]: 1, column[j]: -1}
                    if told_i:
                        row[column[i] + len(honest)] = -1
                    if told_j:
                        row[column[j] + len(honest)] = 1
                    rows.append(_row(width, row))
                elif not told_i and not told_j:
                    rows.append(_row(width, {column[i]: 1, column[j]: -1}))
    shares_only = [vector[: len(honest)] for vector in _null_space(rows, width)]
    return tuple(tuple(row) for row in _reduced(shares_only))


def within(space: tuple[tuple[int, ...], ...], vectors: tuple[tuple[int, ...], ...]) -> bool:
    """Whether all `vectors` lie in the span of `space`."""
    return len(_reduced([list(row) for row in (*space, *vectors)])) == len(space)


def _row(width: int, entries: dict[int, int]) -> list[int]:
    row = [0] * width
    for at, value in entries.items():
        row[at] = value % _PRIME
    return row


def _reduced(rows: list[list[int]]) -> list[list[int]]:
    """The reduced row echelon form without zero rows."""
    rest, done = [row[:] for row in rows], list[list[int]]()
    for at in range(len(rows[0]) if rows else 0):
        pivot = next((row for row in rest if row[at]), None)
        if pivot is None:
            continue
        rest.remove(pivot)
        inverse = pow(pivot[at], -1, _PRIME)
        pivot = [value * inverse % _PRIME for value in pivot]
        rest, done = [_cleared(row, pivot, at) for row in rest], [_cleared(row, pivot, at) for row in done]
        done.append(pivot)
    return done


def _cleared(row: list[int], pivot: list[int], at: int) -> list[int]:
    factor = row[at]
    return [(value - factor * other) % _PRIME for value, other in zip(row, pivot, strict=True)] if factor else row


def _null_space(rows: list[list[int]], width: int) -> list[list[int]]:
    echelon = _reduced(rows)
    pivots = [next(at for at, value in enumerate(row) if value) for row in echelon]
    basis = []
    for free in set(range(width)) - set(pivots):
        vector = _row(width, {free: 1})
        for at, row in zip(pivots, echelon, strict=True):
            vector[at] = -row[free] % _PRIME
        basis.append(vector)
    return basis
