"""
The demo on the terminal: rings, rounds, who is missing, watts and watt hours; plain lines where there is no terminal.

Both views are drawn from the same state; the plain one prints a line when a round is complete and when something
happens, so that a log of it reads well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtest.demo.watch import RoundSeen, Watch

_RINGS_SHOWN = 16
_EVENTS_SHOWN = 6
_MISSING_SHOWN = 3


@dataclass(slots=True)
class DemoState:
    """What the views show."""

    gateways: int
    rounds: int
    dashboard: str
    watch: Watch
    phase: str = "starting"
    events: list[str] = field(default_factory=list)


class View:
    """Shows a state: live where the console is a terminal, else line by line."""

    def __init__(self, state: DemoState, console: Console) -> None:
        self._state = state
        self._console = console
        self._live: Live | None = None
        self._rounds_told = 0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The live view, for as long as the context lasts."""
        if not self._console.is_terminal:
            yield
            return
        with Live(render(self._state), console=self._console, auto_refresh=False) as self._live:
            yield
        self._live = None

    def say(self, event: str) -> None:
        """Something happened."""
        self._state.events.append(f"{datetime.now().astimezone():%H:%M:%S}  {event}")
        if self._live is None:
            self._console.print(self._state.events[-1], highlight=False)
        self.refresh()

    def refresh(self) -> None:
        """Draw again, or print the rounds that have become complete."""
        if self._live is not None:
            self._live.update(render(self._state), refresh=True)
            return
        complete = [total for total in self._state.watch.totals if total.complete][: self._state.rounds]
        for number, total in enumerate(complete[self._rounds_told :], self._rounds_told + 1):
            flow = f" {_number(total.power_w):>9} W {_number(total.import_wh):>8} Wh in"
            flow += f" {_number(total.export_wh):>8} Wh out"
            self._console.print(
                f"round {number:3}/{self._state.rounds} {total.present:5}/{self._state.gateways} gateways"
                + (flow if total.present else "      void"),
                highlight=False,
            )
        self._rounds_told = len(complete)


def render(state: DemoState) -> RenderableType:
    """The live view as one renderable."""
    ended = state.watch.ended
    head = Table.grid(padding=(0, 2))
    head.add_row(Text("Stromkreis", style="bold"), state.phase, Text(state.dashboard, style="underline cyan"))
    progress = Table.grid(padding=(0, 2))
    progress.add_row(
        f"round {min(ended, state.rounds)}/{state.rounds}",
        _bar(ended, state.rounds),
    )
    parts: list[RenderableType] = [head, progress, _figures(state), _rings(state)]
    if state.events:
        parts.append(Text("\n".join(state.events[-_EVENTS_SHOWN:]), style="dim"))
    return Panel(Group(*parts), border_style="blue")


def _bar(ended: int, rounds: int) -> RenderableType:
    return ProgressBar(rounds, min(ended, rounds), width=40, complete_style="cyan", finished_style="green")


def _figures(state: DemoState) -> RenderableType:
    complete = [total for total in state.watch.totals if total.complete]
    figures = Table.grid(padding=(0, 3))
    if not complete:
        figures.add_row("no round has ended yet")
        return figures
    last = complete[-1]
    figures.add_row(
        f"{last.present} of {state.gateways} gateways in the last total",
        Text(f"{_number(last.power_w)} W", style="bold"),
        f"{_number(sum((total.import_wh for total in complete), Decimal(0)))} Wh in",
        f"{_number(sum((total.export_wh for total in complete), Decimal(0)))} Wh out",
    )
    return figures


def _rings(state: DemoState) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name, justify in (("area", "left"), ("ring", "right"), ("opened", "right"), ("void", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name in ("last", "present", "ms"):
        table.add_column(name, justify="right")
    table.add_column("missing")
    rings: dict[tuple[str, int, int], list[RoundSeen]] = {}
    for each in state.watch.rounds.values():
        rings.setdefault((each.area, each.epoch, each.ring), []).append(each)
    for (area, _epoch, ring), seen in sorted(rings.items())[:_RINGS_SHOWN]:
        last = max(seen, key=lambda each: each.round)
        opened = sum(each.opened for each in seen)
        present = Text(
            f"{last.members - len(last.missing)}/{last.members}", style="yellow" if last.missing else "green"
        )
        missing = _missing(last) if last.opened else Text(last.reason, style="red")
        table.add_row(
            area, str(ring), str(opened), str(len(seen) - opened), str(last.round + 1), present,
            f"{last.latency_ms:.0f}", missing,
        )  # fmt: skip
    if len(rings) > _RINGS_SHOWN:
        table.add_row(f"and {len(rings) - _RINGS_SHOWN} more")
    return table


def _missing(seen: RoundSeen) -> Text:
    names = ", ".join(seen.missing[:_MISSING_SHOWN])
    rest = len(seen.missing) - _MISSING_SHOWN
    return Text(f"{names} +{rest}" if rest > 0 else names, style="yellow")


def _number(value: Decimal) -> str:
    return f"{value:,.0f}".replace(",", " ")
