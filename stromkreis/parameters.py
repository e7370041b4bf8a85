"""
`stromkreis parameters`: what a ring must look like for a threat, in words that an operator can decide by.

All mathematics is in `protocol.dcnet.parameters.choice`; here it becomes a sentence and a table: each number, what it
means for the running of the ring, and what is tolerated.  Unless options say otherwise the numbers are those that the
coordinator and every gateway use.  An impossible wish ends with its reason and exit code 1.
"""

import math
from enum import StrEnum
from fractions import Fraction
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from protocol.dcnet.parameters.choice import Parameters, choose, plain_circle
from protocol.errors import LocalProtocolError


class ThreatModel(StrEnum):
    """What head and coordinator may do besides colluding with the corrupt members."""

    HONEST_BUT_CURIOUS = "honest-but-curious"
    SEMI_MALICIOUS = "semi-malicious"
    UNSPLITTABLE = "unsplittable"


_MODEL_TEXT = {
    "honest-but-curious": "head and coordinator follow the protocol and try to learn from what they see",
    "semi-malicious": "head and coordinator may lie about who is there",
    "unsplittable": "head and coordinator may lie about who is there, and still open no part of the ring alone",
}


def parameters(
    *,
    ring: Annotated[int, typer.Option(help="Members of one ring.")] = 64,
    corrupt: Annotated[float, typer.Option(help="Fraction of members that may collude, from 0 to 1.")] = 0.05,
    dropout: Annotated[float, typer.Option(help="Fraction of members that may fall silent, from 0 to 1.")] = 0.05,
    privacy_bits: Annotated[float, typer.Option(help="A reading is exposed with less than 1 in 2^bits.")] = 40,
    success_bits: Annotated[float, typer.Option(help="A round gets stuck with less than 1 in 2^bits.")] = 30,
    model: Annotated[ThreatModel, typer.Option(help="What head and coordinator may do.")] = ThreatModel.UNSPLITTABLE,
    population: Annotated[
        int | None, typer.Option(help="All gateways of the area, where it has more than this ring.")
    ] = None,
    circle: Annotated[bool, typer.Option("--circle", help="A plain circle, two neighbours each; weak.")] = False,
    failure_domain: Annotated[
        float | None,
        typer.Option(help="Share of the area's gateways that go away together (a machine, a rack): is it tolerated?"),
    ] = None,
) -> None:
    """Choose the neighbours, thresholds and least sizes of a ring, and say what it then withstands."""
    try:
        if circle:
            chosen = plain_circle(ring, corrupt, dropout, population=population)
        else:
            chosen = choose(
                ring, corrupt, dropout, privacy_bits, success_bits, model=model.value, population=population
            )
    except LocalProtocolError as error:
        advice = "Choose larger rings, or lower --corrupt or --dropout."
        Console(stderr=True).print(f"{error}.\n{advice}", style="red", highlight=False)
        raise typer.Exit(1) from None
    console = Console()
    console.print(summary(chosen), highlight=False)
    console.print(table(chosen))
    if failure_domain is not None:
        text, is_tolerated = failure_domain_text(chosen, failure_domain, dropout, population)
        console.print(text, style=None if is_tolerated else "red", highlight=False)
        if not is_tolerated:
            raise typer.Exit(1)
    if population is None:
        console.print(
            "Note: so it is where the ring is the whole area. Of an area's many rings some get more than their share of"
            " the corrupt and the silent: give --population, the number of its gateways.",
            style="yellow", highlight=False,
        )  # fmt: skip
    for warning in chosen.warnings:
        console.print(f"Warning: {warning}.", style="yellow", highlight=False)
    if chosen.model != "honest-but-curious" and chosen.split_bits < privacy_bits:
        console.print(
            f"Note: a lying head may open a part of the ring alone ({_odds(chosen.split_bits, 'epoch')}); "
            "--model unsplittable closes that.",
            style="yellow",
            highlight=False,
        )


def summary(chosen: Parameters) -> str:
    """What an operator decides by, in a sentence."""
    honest = chosen.n_min - chosen.corrupt
    return (
        f"Every total of the ring hides a reading among those of {honest} honest members at least."
        f" Of its {chosen.n} members up to {chosen.corrupt} may collude with head and coordinator, and up to"
        f" {chosen.dropped} may be silent in a round."
    )


def failure_domain_text(chosen: Parameters, share: float, dropout: float, population: int | None) -> tuple[str, bool]:
    """
    Whether rounds still open when a share of the area's gateways goes away at once, and what to do where not.

    In the ring that is the whole area the very number counts, in one of many the share that they were cut for, since
    which gateways share a ring is drawn.  Raises typer.BadParameter for a share that is none.
    """
    if not 0 < share < 1:
        raise typer.BadParameter(f"found {share}; expected a share between 0 and 1", param_hint="--failure-domain")
    gone = math.ceil(Fraction(str(share)) * (population or chosen.n))
    of_all = f"{gone} of {population or chosen.n} gateways"
    is_whole_area = population is None or population == chosen.n
    if gone <= chosen.dropped if is_whole_area else share <= dropout:
        return f"Tolerated: a failure domain of {of_all} goes away, and rounds still open.", True
    least = math.ceil(1 / Fraction(str(dropout))) if dropout else 0
    domains = f", or spread the gateways evenly over at least {least} domains" if dropout else ""
    return (
        f"Not tolerated: where a failure domain of {of_all} goes away, no round opens until it is back or another epoch"
        f" begins without it. Raise --dropout (coordinator.epoch.dropout) to {share:g}, with larger rings where that is"
        f" impossible{domains}.",
        False,
    )


def table(chosen: Parameters) -> Table:
    """The parameters as rows of: what, value, meaning."""
    result = Table(title=f"Ring of {chosen.n}: {_MODEL_TEXT[chosen.model]}", title_justify="left")
    result.add_column("What")
    result.add_column("Value", justify="right")
    result.add_column("What it means")
    neighbours = "everybody else" if chosen.complete else f"{chosen.k // 2} on either side in the ring's order"
    for row in (
        ("neighbours (k)", chosen.k, f"each member shares keys with {neighbours}; its cost grows with k"),
        ("recovery (t)", chosen.t, "neighbours that together can finish for a member that fell silent; fewer cannot"),
        ("confirmations (t_c)", chosen.t_c, "neighbours that must confirm the same roster before a member reveals"),
        ("least neighbours (k_min)", chosen.k_min, "of a member in a roster; with fewer it refuses to take part"),
        ("least members (n_min)", chosen.n_min, "of a roster; with fewer the round is given up, nothing is shown"),
        ("corrupt tolerated", chosen.corrupt, "members of the ring that may tell head and coordinator everything"),
        ("silent tolerated", chosen.dropped, "members that may vanish in one round while it still finishes"),
        ("honest in every total", chosen.n_min - chosen.corrupt, "readings at least that hide each other in a total"),
        ("privacy", _bits(chosen.sigma_reached), f"a reading is exposed: {_odds(chosen.sigma_reached, 'epoch')}"),
        ("progress", _bits(chosen.eta_reached), f"a round gets stuck: {_odds(chosen.eta_reached, 'round')}"),
        ("unity", _bits(chosen.split_bits), f"a lying head opens a part alone: {_odds(chosen.split_bits, 'epoch')}"),
    ):
        result.add_row(row[0], str(row[1]), row[2])
    return result


def _bits(bits: float) -> str:
    return "certain" if math.isinf(bits) else f"{math.floor(bits)} bits"


def _odds(bits: float, what: str) -> str:
    if math.isinf(bits):
        return "never, within the tolerated numbers"
    if bits < 1:
        return "no protection"
    decimals = math.floor(bits * math.log10(2))
    return f"in less than one {what} in {f'10^{decimals}' if decimals > 3 else math.floor(2**bits)}"
