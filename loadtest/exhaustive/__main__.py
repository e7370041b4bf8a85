"""
The long form of the exhaustive check: `python -m loadtest.exhaustive`, minutes on one core; the short form is a test.

Each line is a ring, what was searched, and the claim: no set smaller than the bound opens, no reading opens twice.
The rings with corrupt members keep 2·t_c - k over the number of all corrupt members, so that no cut is possible.
"""

import time
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from loadtest.exhaustive.copies import every_view
from loadtest.exhaustive.model import Ring
from loadtest.exhaustive.search import exhaustive, sampled, two_attempts

_EVERY_VIEW = ((Ring(6, 4, 3, 3, 3, 4), 5), (Ring(7, 4, 3, 3, 3, 5), 6))
_EVERY_PAIR = (
    Ring(6, 4, 3, 3, 3, 4),
    Ring(6, 4, 3, 3, 2, 4),
    Ring(6, 5, 3, 3, 3, 4),
    Ring(6, 5, 4, 4, 3, 4, corrupt=(0,)),
)
_COPIED = Ring(5, 4, 3, 3, 3, 4)
_SAMPLED = (
    (Ring(10, 6, 5, 5, 5, 7, corrupt=(0, 5)), 7),
    (Ring(12, 6, 5, 5, 5, 8, corrupt=(0, 1)), 6),
    (Ring(16, 8, 6, 6, 6, 11, corrupt=(0, 8)), 9),
    (Ring(16, 10, 7, 7, 7, 11, corrupt=(3, 4, 11)), 8),
    (Ring(16, 15, 9, 9, 9, 11, corrupt=(0, 5)), 9),
)


def main(
    samples: Annotated[int, typer.Option(help="Random combinations for each of the larger rings.")] = 10**7,
    seed: Annotated[int, typer.Option(help="Of the random combinations.")] = 1,
) -> None:
    """Search what a lying head can open; exit code 1 if a claim does not hold."""
    console = Console()
    failed = False

    def report(ring: Ring, searched: str, *, holds: bool, started: float) -> None:
        nonlocal failed
        failed |= not holds
        console.print(
            f"{'holds ' if holds else 'BROKEN'} {ring}: {searched} ({time.monotonic() - started:.0f} s)",
            highlight=False,
            soft_wrap=True,
        )

    for ring, bound in _EVERY_VIEW:
        for may_see_nothing in (False, True):
            started = time.monotonic()
            outcome = exhaustive(ring, may_see_nothing=may_see_nothing)
            searched = f"all {outcome.combinations:,} combinations, smallest {outcome.smallest}"
            report(ring, searched, holds=outcome.smallest == bound, started=started)
    for copies in (2, 3):
        started = time.monotonic()
        found = every_view(_COPIED, copies)
        searched = f"{copies} copies of one gateway, all {found.combinations:,} combinations, smallest {found.smallest}"
        report(_COPIED, searched, holds=found.smallest == _COPIED.n_min, started=started)
    for ring in _EVERY_PAIR:
        started = time.monotonic()
        pairs = two_attempts(ring)
        searched = f"two attempts by {pairs.combinations:,} combinations, repeated {pairs.repeated}"
        report(ring, searched, holds=not pairs.repeated, started=started)
    for ring, bound in _SAMPLED:
        started = time.monotonic()
        outcome = sampled(ring, samples, np.random.default_rng(seed))
        searched = f"{outcome.combinations:,} sampled, {outcome.opening:,} open, smallest {outcome.smallest}"
        report(ring, searched, holds=outcome.smallest >= bound, started=started)
    raise typer.Exit(int(failed))


if __name__ == "__main__":
    typer.run(main)
