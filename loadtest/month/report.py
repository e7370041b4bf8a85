"""What a month came to: JSON for machines, a text for people, and why it failed where it did."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

DAYS_OF_MONTH = 31
ROUNDS_OF_DAY = 96
OPENED_MIN = 0.9  # of the ring rounds: the process that is killed costs rounds in a ring that loses too many with it


@dataclass(frozen=True, slots=True)
class MonthReport:
    """
    `report.json`.

    `rings_opened` and `rings_void` are the rounds of the day; that totals are exact is said of all there were.
    Latencies of ring rounds go from a round's opening to its end: in the day before deliveries, and while gateways
    deliver.  Octets of deliveries and profiles are those of TLS sessions, both ways; octets of rings the payload of
    ZeroMQ messages, both ways; none counts TCP and IP.
    """

    gateways: int
    tafs: tuple[int, ...]
    rounds: int
    period_s: float
    cpu_count: int
    fill_s: float
    roll_out_s: float
    deliver_s: float
    deliveries: int
    deliveries_per_s: float
    deliveries_per_s_best: float
    coordinator_cpu_ms_per_delivery: float
    export_s: float
    values: int
    mistakes: tuple[str, ...]
    kills: tuple[str, ...]
    cuts: int
    rings_opened: int
    rings_void: int
    rings_are_exact: bool
    rings_difference: str
    round_ms_p50_before: float | None
    round_ms_p95_before: float | None
    round_ms_p50_delivering: float | None
    round_ms_p95_delivering: float | None
    ring_octets_per_gateway_round: float
    delivery_octets_per_gateway: float
    message_octets_per_gateway: float
    profile_octets_per_gateway: float
    contract_mb_per_month: float

    @property
    def octets_per_gateway_day(self) -> float:
        """A day of ring rounds, and its part of a month's deliveries."""
        return self.ring_octets_per_gateway_round * ROUNDS_OF_DAY + self.delivery_octets_per_gateway / DAYS_OF_MONTH

    @property
    def failures(self) -> list[str]:
        """Why it failed, in sentences; empty where it did not."""
        found = [*self.mistakes]
        if not self.values:
            found.append("the export has no values")
        if self.deliveries != self.gateways * len(self.tafs):
            found.append(f"{self.deliveries} deliveries, expected {self.gateways * len(self.tafs)}")
        if not self.rings_are_exact:
            found.append(f"a ring's total is not what the meters had: {self.rings_difference}")
        held = self.rings_opened + self.rings_void
        if not held or self.rings_opened < OPENED_MIN * held:
            found.append(f"{self.rings_opened} of {held} ring rounds opened, expected {OPENED_MIN:.0%}")
        return found


def write_report(report: MonthReport, directory: Path) -> str:
    """Write `report.json` and `report.txt` into the directory; returns the text."""
    derived = {"octets_per_gateway_day": round(report.octets_per_gateway_day, 1), "failures": report.failures}
    (directory / "report.json").write_text(json.dumps(asdict(report) | derived, indent=1) + "\n", encoding="utf-8")
    text = _text(report)
    (directory / "report.txt").write_text(text, encoding="utf-8")
    return text


def _text(report: MonthReport) -> str:
    per_month_mb = report.octets_per_gateway_day * DAYS_OF_MONTH / 1e6
    lines = [
        f"{report.gateways} gateways, TAF {', '.join(map(str, report.tafs))}, {report.cpu_count} processors",
        f"values      {report.values}, {len(report.mistakes)} mistakes",
        f"filled      in {report.fill_s:.0f} s; profiles rolled out in {report.roll_out_s:.0f} s",
        f"delivered   {report.deliveries} in {report.deliver_s:.0f} s, {report.deliveries_per_s:.1f}/s in the mean,"
        f" {report.deliveries_per_s_best:.1f}/s in the best 10 s,"
        f" {report.coordinator_cpu_ms_per_delivery:.1f} ms of coordinator CPU each",
        f"exported    in {report.export_s:.0f} s",
        f"faults      killed: {', '.join(report.kills) or 'nobody'}; connections cut {report.cuts} times",
        f"rings       {report.rings_opened} rounds opened, {report.rings_void} void, totals"
        f" {'exact' if report.rings_are_exact else 'WRONG'}; {report.rounds} quarter hours of {report.period_s:g} s",
        f"latency     before: {_ms(report.round_ms_p50_before)} median, {_ms(report.round_ms_p95_before)} 95 %;"
        f" while delivering: {_ms(report.round_ms_p50_delivering)} median, {_ms(report.round_ms_p95_delivering)} 95 %",
        f"WAN         {report.octets_per_gateway_day / 1000:.1f} kB a gateway and day: rings"
        f" {report.ring_octets_per_gateway_round * ROUNDS_OF_DAY / 1000:.1f} kB, deliveries"
        f" {report.delivery_octets_per_gateway / DAYS_OF_MONTH / 1000:.1f} kB"
        f" ({report.delivery_octets_per_gateway / 1000:.1f} kB a month,"
        f" {report.message_octets_per_gateway / 1000:.1f} kB of it messages)",
        f"            a profile set {report.profile_octets_per_gateway / 1000:.1f} kB",
        f"            {per_month_mb:.2f} MB a month, {100 * per_month_mb / report.contract_mb_per_month:.0f} % of a"
        f" contract of {report.contract_mb_per_month:g} MB",
    ]  # fmt: skip
    return "\n".join([*lines, *(f"FAILED      {each}" for each in report.failures[:20]), ""])


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"
