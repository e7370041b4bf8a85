"""Tables of `stromkreis netem` for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from netem.emulation import Backend
from netem.profiles import Direction, LinkProfile, Outages
from netem.scenario import Scenario, Step
from netem.selfcheck import Comparison, Measurement


def rate_text(rate_bit_s: float | None) -> str:
    """A rate as people write it: `6 Mbit/s`."""
    if rate_bit_s is None:
        return "unlimited"
    if rate_bit_s >= 1_000_000:
        return f"{rate_bit_s / 1e6:.3g} Mbit/s"
    return f"{rate_bit_s / 1e3:.3g} kbit/s"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.4g} ms"


def _delay(direction: Direction) -> str:
    return f"{direction.delay_s * 1e3:.4g} ± {direction.jitter_s * 1e3:.4g} ms"


def _percent(share: float) -> str:
    return f"{share * 100:.2g} %"


def _both(up: str, down: str) -> str:
    return up if up == down else f"{up} /\n{down}"


def _outages(outages: Outages) -> str:
    return f"each {outages.mean_interval_s / 3600:.3g} h, {outages.duration_min_s:g} to {outages.duration_max_s:g} s"


def profile_table(profiles: Iterable[LinkProfile]) -> Table:
    """All profiles, up and down where they differ."""
    table = Table(title="Link profiles (up / down where they differ)", title_justify="left")
    for heading in ("profile", "delay one way ± jitter", "loss", "rate", "what it is"):
        table.add_column(heading, no_wrap=heading == "profile")
    for profile in profiles:
        up, down = profile.up, profile.down
        table.add_row(
            profile.name,
            _both(_delay(up), _delay(down)),
            _both(_percent(up.loss), _percent(down.loss)),
            _both(rate_text(up.rate_bit_s), rate_text(down.rate_bit_s)),
            profile.title,
        )
    return table


def scenario_table(scenarios: Iterable[Scenario]) -> Table:
    """All scenarios."""
    table = Table(title="Scenarios", title_justify="left")
    for heading in ("scenario", "takes", "what happens"):
        table.add_column(heading, no_wrap=heading != "what happens")
    for scenario in scenarios:
        table.add_row(scenario.name, f"{scenario.duration_s:g} s", scenario.title)
    return table


def print_profile(profile: LinkProfile, console: Console) -> None:
    """One profile with its sources."""
    table = Table(title=f"{profile.name}: {profile.title}", title_justify="left")
    for heading in ("", "delay one way", "jitter", "loss", "rate", "queue"):
        table.add_column(heading)
    for name, direction in (("up", profile.up), ("down", profile.down)):
        table.add_row(name, *_cells(direction))
    console.print(table)
    if profile.outages is not None:
        console.print(f"outages: {_outages(profile.outages)}")
    for source in profile.sources:
        console.print(f"source: {source}", highlight=False)
    if profile.assumed:
        console.print(f"assumed: {profile.assumed}", highlight=False)


def _cells(direction: Direction) -> tuple[str, ...]:
    return (
        _milliseconds(direction.delay_s), _milliseconds(direction.jitter_s), _percent(direction.loss),
        rate_text(direction.rate_bit_s), f"{direction.queue_s:g} s",
    )  # fmt: skip


def print_timeline(scenario: Scenario, steps: Iterable[Step], console: Console) -> None:
    """What happens when."""
    console.print(f"{scenario.name}: {scenario.title}", highlight=False)
    for step in steps:
        cut = sum(not link.is_up for link in step.state.values())
        apart = sum(link.group != 0 for link in step.state.values())
        now = ", ".join(text for count, text in ((cut, f"{cut} cut"), (apart, f"{apart} apart")) if count)
        console.print(f"{step.at_s:9.1f} s  {step.what}" + (f"  [{now}]" if now else ""), highlight=False, markup=False)


def measurement_table(backend: Backend, measured: Sequence[Measurement]) -> Table:
    """What was asked over what was measured; what is off is red."""
    title = f"Self-check on {backend}: asked, and measured below it"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, collapse_padding=True)
    for heading in ("profile", "round trip ± dev.", "loss", "rate up", "rate down", ""):
        table.add_column(heading, no_wrap=True)
    for each in measured:
        asked_trip = _trip(each.round_trip_s.asked, each.asked_deviation_s)
        trip = _trip(each.round_trip_s.measured, each.deviation_s)
        table.add_row(
            each.profile,
            f"{asked_trip}\n{_coloured(trip, each.round_trip_s)}",
            _stacked(each.loss, _percent),
            _stacked(each.rate_up_bit_s, rate_text),
            _stacked(each.rate_down_bit_s, rate_text),
            "[green]ok[/]" if each.is_right else "[red]off[/]",
        )
    return table


def _trip(median_s: float, deviation_s: float) -> str:
    return " ± ".join(f"{s * 1e3:.0f}" if s >= 0.1 else f"{s * 1e3:.2g}" for s in (median_s, deviation_s)) + " ms"


def _stacked(comparison: Comparison | None, text: Callable[[float], str]) -> str:
    if comparison is None:
        return "unlimited"
    return f"{text(comparison.asked)}\n{_coloured(text(comparison.measured), comparison)}"


def _coloured(text: str, comparison: Comparison) -> str:
    return text if comparison.is_right else f"[red]{text}[/]"
