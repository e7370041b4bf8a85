"""
The coordinator's Prometheus metrics, after the naming conventions: base units, `_total` for what only grows.

No metric carries a gateway's id: ten thousand gateways would be ten thousand time series each, and a curve of one
household's presence is something that the operator has no business drawing.  The registry is handed in, so that many
coordinators can live in one test process.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from coordinator.area_metrics import AreaMetrics
from coordinator.events import MISBEHAVIOURS
from protocol.link.kernel_clock import clock_offset_s

# A round on loopback takes tens of milliseconds, one over mobile links seconds; void rounds sit at their deadline.
_ROUND_BUCKETS_S = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

WRITE_BUCKETS_S = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
LAG_BUCKETS_S = (0.005, 0.02, 0.1, 0.5, 2.0)


class CoordinatorMetrics:
    """All series of one coordinator in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._rounds = Counter(
            "stromkreis_rounds", "Ring rounds that ended.", ["outcome"], registry=registry
        )  # exposed as stromkreis_rounds_total
        self._retries = Counter(
            "stromkreis_round_retries", "Attempts of a ring round after its first.", registry=registry
        )
        self._duration = Histogram(
            "stromkreis_round_duration_seconds", "From the start of a ring round to its end.",
            buckets=_ROUND_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._roster = Histogram(
            "stromkreis_round_roster_ratio", "Part of a ring's members that were in an opened total.",
            buckets=(0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0), registry=registry,
        )  # fmt: skip
        self.ring_members = Gauge("stromkreis_ring_members", "Members of all current rings.", registry=registry)
        self.rings = Gauge("stromkreis_rings", "Rings of the current epochs.", registry=registry)
        self._early = Counter(
            "stromkreis_epochs_called_early",
            "Epochs called before the one that was running ended, by reason.",
            ["reason"],
            registry=registry,
        )
        self._rings_short = Gauge(
            "stromkreis_rings_short",
            "Rings that cannot open: of their members fewer than n_min are connected, with k_min neighbours each.",
            registry=registry,
        )
        self._members_missing = Gauge(
            "stromkreis_ring_members_missing", "Members that such rings lack for n_min, in sum.", registry=registry
        )
        self._waiting = Gauge(
            "stromkreis_gateways_waiting", "Gateways that are connected and in no ring, until the next epoch.",
            registry=registry,
        )  # fmt: skip
        self._log_size = Gauge("stromkreis_enrolment_log_size", "Entries of the enrolment log.", registry=registry)
        self._log_head = Gauge(
            "stromkreis_enrolment_log_head_timestamp_seconds",
            "When the newest tree head of the enrolment log was signed here; 0: not here.",
            registry=registry,
        )
        self._enrolled = Gauge("stromkreis_gateways_enrolled", "Active gateways in the directory.", registry=registry)
        self._connected = Gauge(
            "stromkreis_gateways_connected",
            "Gateways that sent something within the last 30 seconds.",
            registry=registry,
        )
        self.received = Counter("stromkreis_received_bytes", "Message bytes from gateways.", registry=registry)
        self.sent = Counter("stromkreis_sent_bytes", "Message bytes to gateways.", registry=registry)
        self._errors = Counter("stromkreis_peer_errors", "Messages refused, by reason.", ["reason"], registry=registry)
        self._enrolments = Counter(
            "stromkreis_enrolments", "Enrolment requests answered, by outcome.", ["outcome"], registry=registry
        )
        self._reports = Counter(
            "stromkreis_misbehaviour_reports",
            "What gateways report of each other, by kind.",
            ["misbehaviour"],
            registry=registry,
        )
        self._bills = Counter("stromkreis_bills", "Bills, by how they stand.", ["outcome"], registry=registry)
        self._time = Counter(
            "stromkreis_time_requests", "Requests to the time service, by outcome.", ["outcome"], registry=registry
        )
        self._deliveries = Counter(
            "stromkreis_deliveries", "Deliveries of gateways, by what became of them.", ["outcome"], registry=registry
        )
        for outcome in ("stored", "known", "refused"):
            self._deliveries.labels(outcome)
        self._certificate = Gauge(
            "stromkreis_certificate_expiry_timestamp_seconds", "When a certificate of the coordinator ends.",
            ["certificate"], registry=registry,
        )  # fmt: skip
        self._ranges = Counter(
            "stromkreis_range_checks",
            "Range proofs that members were drawn for, by what came of them.",
            ["outcome"],
            registry=registry,
        )
        self._loop_lag = Histogram(
            "stromkreis_event_loop_lag_seconds", "How long a task that is due waits for its turn.",
            buckets=LAG_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._store_write = Histogram(
            "stromkreis_store_write_duration_seconds", "From the beginning of a writing transaction to its commit.",
            buckets=WRITE_BUCKETS_S, registry=registry,
        )  # fmt: skip
        clock = Gauge(
            "stromkreis_clock_offset_seconds",
            "Offset of the machine's clock that is being corrected; NaN where nobody synchronises it.",
            registry=registry,
        )
        clock.set_function(clock_offset_s)
        self._active = Gauge(
            "stromkreis_ring_service_active", "1: this process is the ring service of its areas; 0: it stands by.",
            registry=registry,
        )  # fmt: skip
        self._term = Gauge(
            "stromkreis_ring_service_term", "How often the areas have changed hands, up to this process; 0: not its.",
            registry=registry,
        )  # fmt: skip
        self._build = Info("stromkreis_build", "The version that runs.", registry=registry)
        self.areas = AreaMetrics(registry)
        self._owed = Gauge("stromkreis_range_proofs_owed", "Range proofs that are owed.", registry=registry)
        self._queue = Gauge("stromkreis_queue_length", "Ended rounds that wait for the disk.", registry=registry)
        # Series exist from the start: a rate over a counter that appears at its first event misses that event.
        for outcome in ("opened", "void"):
            self._rounds.labels(outcome)
        for outcome in ("enrolled", "refused"):
            self._enrolments.labels(outcome)
        for outcome in ("asked", "verified", "refused", "declined"):
            self._bills.labels(outcome)
        for outcome in ("drawn", "proved", "overdue", "refused", "wrong"):
            self._ranges.labels(outcome)
        for reason in ("void_rounds", "too_few_connected", "many_waiting"):
            self._early.labels(reason)
        for misbehaviour in MISBEHAVIOURS:
            self._reports.labels(misbehaviour)
        for reason in ("store_error", "head_replaced", "total_unverified"):
            self._errors.labels(reason)

    def round_opened(self, *, duration_s: float, attempt: int, present: int, size: int) -> None:
        """A ring round ended with a total of `present` out of `size` members, in attempt 0, 1 or 2."""
        self._rounds.labels("opened").inc()
        self._retries.inc(attempt)
        self._duration.observe(duration_s)
        self._roster.observe(present / size)

    def delivery(self, outcome: str) -> None:
        """A delivery was `stored`, `known` already, or `refused` after it was passed on."""
        self._deliveries.labels(outcome).inc()

    def round_void(self, *, attempt: int = 0) -> None:
        """A ring round was given up; its duration is a deadline's and would only blur the histogram."""
        self._rounds.labels("void").inc()
        self._retries.inc(attempt)

    def peer_error(self, reason: str) -> None:
        """A message was refused; `reason` is a RemoteProtocolError's, a closed set of codes."""
        self._errors.labels(reason).inc()

    def epoch_called_early(self, reason: str) -> None:
        """An epoch was called early for `void_rounds`, `too_few_connected` members or `many_waiting` gateways."""
        self._early.labels(reason).inc()

    def log_head(self, size: int, time_s: float) -> None:
        """A tree head of the enrolment log was signed."""
        self._log_size.set(size)
        self._log_head.set(time_s)

    def store_write(self, seconds: float) -> None:
        """A writing transaction took so long; called in worker threads."""
        self._store_write.observe(seconds)

    def ring_service(self, *, is_active: bool, term: int) -> None:
        """Whether we are the ring service, and since which term; or stand by."""
        self._active.set(is_active)
        self._term.set(term)

    def version(self, version: str) -> None:
        """The release that runs."""
        self._build.info({"version": version})

    def loop_lag(self, seconds: float) -> None:
        """A task waited so long for its turn."""
        self._loop_lag.observe(seconds)

    def standing(self, *, rings_short: int, members_missing: int, waiting: int) -> None:
        """How the areas stand in their running epochs."""
        self._rings_short.set(rings_short)
        self._members_missing.set(members_missing)
        self._waiting.set(waiting)

    def enrolment(self, *, enrolled: bool) -> None:
        """An enrolment request was answered."""
        self._enrolments.labels("enrolled" if enrolled else "refused").inc()

    def misbehaviour_report(self, misbehaviour: str) -> None:
        """A head reports a member (`wrong_seed`, `corrupt_sum`), or a member its dealer (`bad_deal`)."""
        self._reports.labels(misbehaviour).inc()

    def bills(self, outcome: str, count: int = 1) -> None:
        """Bills were `asked` for, `verified`, `refused` (a wrong amount) or `declined` (by their gateway)."""
        self._bills.labels(outcome).inc(count)

    def range_check(self, outcome: str) -> None:
        """A member was `drawn`, has `proved`, or owes: `overdue`, `refused` or a `wrong` proof."""
        self._ranges.labels(outcome).inc()

    def watch_ranges(self, owed: Callable[[], int]) -> None:
        """Count the proofs that are owed whenever somebody asks."""
        self._owed.set_function(owed)

    def time_request(self, outcome: str) -> None:
        """The time service `answered` a request, or did not, with the reason."""
        self._time.labels(outcome).inc()

    def certificate(self, name: str, not_after: datetime) -> None:
        """One of `root`, `sub_ca`, `web`, `administrator`, `participant` ends then."""
        self._certificate.labels(name).set(not_after.timestamp())

    def watch(
        self, *, enrolled: Callable[[], int], connected: Callable[[], int], queue_length: Callable[[], int]
    ) -> None:
        """Count these whenever somebody asks: nobody can forget to bring them up to date."""
        self._enrolled.set_function(enrolled)
        self._connected.set_function(connected)
        self._queue.set_function(queue_length)
