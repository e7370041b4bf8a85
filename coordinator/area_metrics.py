"""What the metrics say of each area: few series, since areas are in the configuration and reasons are a closed set."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

_REASONS = {  # by how the text begins, which a head may choose
    "no total in time": "no_total_in_time",
    "fewer than": "too_few_members",
    "the masks did not cancel": "masks_did_not_cancel",
    "the head's evidence": "false_evidence",
}
_OTHER = "other"


class AreaMetrics:
    """All series with an area in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._void = Counter(
            "stromkreis_void_rounds", "Ring rounds that ended without a total.", ["area", "reason"], registry=registry
        )
        self._opened = Gauge(
            "stromkreis_last_opened_timestamp_seconds", "When a total was opened last; 0: not since the start.",
            ["area"], registry=registry,
        )  # fmt: skip
        self._epoch = Gauge(
            "stromkreis_epoch", "Number of the area's running epoch; -1: none.", ["area"], registry=registry
        )
        self._end = Gauge(
            "stromkreis_epoch_end_timestamp_seconds", "When the area's running epoch ends; 0: none has run.",
            ["area"], registry=registry,
        )  # fmt: skip

    def begin(self, areas: Iterable[str]) -> None:
        """Have the series of these areas from the start."""
        for area in areas:
            for reason in (*_REASONS.values(), _OTHER):
                self._void.labels(area, reason)
            self._opened.labels(area).set(0)
            self._epoch.labels(area).set(-1)
            self._end.labels(area).set(0)

    def void(self, area: str, text: str) -> None:
        """A ring round ended without a total, for the reason that its text tells."""
        reason = next((name for start, name in _REASONS.items() if text.startswith(start)), _OTHER)
        self._void.labels(area, reason).inc()

    def opened(self, area: str, now_s: float) -> None:
        """A ring round ended with a total."""
        self._opened.labels(area).set(now_s)

    def running(self, area: str, epoch: int, end_s: float) -> None:
        """The epoch that runs now, until then."""
        self._epoch.labels(area).set(epoch)
        self._end.labels(area).set(end_s)
