"""What a node counts, for Prometheus.  No label names a gateway, a meter or a household."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from node.readiness import Counts
from protocol.link.kernel_clock import clock_offset_s

# As fine as the coordinator's for whole rounds: on loopback a phase takes milliseconds, over mobile links seconds.
_PHASE_BUCKETS_S = (
    0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
_LIES = (  # no accident says these
    "second_call", "second_layout", "second_roster", "wrong_placement", "weak_epoch", "bad_layout", "forged_result",
)  # fmt: skip

WRITE_BUCKETS_S = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
LAG_BUCKETS_S = (0.005, 0.02, 0.1, 0.5, 2.0)
_STATES = {
    "seated": "Gateways in a ring of the running epoch",
    "seated_next": "Gateways in no ring that runs, and in one of an epoch that has not begun",
    "without_coordinator": "Gateways without a link to the coordinator",
    "without_head": "Gateways in a ring of the running epoch without a link to its head",
    "taken_part": "Gateways that were in an opened total of a round since the process started",
    "without_round": "Gateways in a running ring that were in no total since the start, and are free to be in one",
}


class NodeMetrics:
    """One process's metrics on a registry that is handed in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._gateways = Gauge("stromkreis_node_gateways", "Gateways in this process", registry=registry)
        self._time_lapse = Gauge(
            "stromkreis_node_time_lapse",
            "Whether metering time may run faster than real time here (1), which hides no reading, or not (0)",
            registry=registry,
        )
        self._returns_limited = Gauge(
            "stromkreis_node_returns_limited",
            "Whether it is counted here how often a gateway comes back into totals (1), or not (0: laboratories)",
            registry=registry,
        )  # fmt: skip
        self._honest_floor = Gauge(
            "stromkreis_node_honest_floor", "Honest members that every total must have here at least", registry=registry
        )
        self._carrying = Gauge(
            "stromkreis_node_carrying_gateways", "Gateways that still release energy of rounds that they missed",
            registry=registry,
        )  # fmt: skip
        self._waiting = Gauge(
            "stromkreis_node_waiting_gateways",
            "Gateways that may not be in a total yet: they came back, or were called, too often",
            registry=registry,
        )  # fmt: skip
        self._states = {
            name: Gauge(f"stromkreis_node_{name}_gateways", text, registry=registry) for name, text in _STATES.items()
        }
        self._loop_lag = Histogram(
            "stromkreis_node_event_loop_lag_seconds", "How long a task that is due waits for its turn.",
            buckets=LAG_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._leaving = Gauge(
            "stromkreis_node_leaving_gateways", "Gateways that were asked to leave for good, and have not left yet",
            registry=registry,
        )  # fmt: skip
        self._build = Info("stromkreis_build", "The version that runs.", registry=registry)
        self._heads = Gauge("stromkreis_node_heads", "Rings whose head is in this process", registry=registry)
        self._settled = Counter(
            "stromkreis_node_contributions", "Contributions whose round ended", ["outcome"], registry=registry
        )
        self._phases = Histogram(
            "stromkreis_node_round_phase_duration_seconds", "From OPEN to the end of a phase, as the head sees it",
            ["phase"], buckets=_PHASE_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._notes = Counter(
            "stromkreis_node_ring_events", "Retries, late messages and the like", ["event"], registry=registry
        )
        self._errors = Counter(
            "stromkreis_node_protocol_errors", "Messages that were refused", ["reason"], registry=registry
        )
        self._dropped = Counter(
            "stromkreis_node_dropped_events", "Events that found a full queue", ["queue"], registry=registry
        )
        self._bills = Counter("stromkreis_node_bills", "Bill requests", ["outcome"], registry=registry)
        self._time_answers = Counter(
            "stromkreis_node_time_answers", "Polls of the time service, by what came of them", ["outcome"],
            registry=registry,
        )  # fmt: skip
        self._profile_sets = Counter(
            "stromkreis_node_profile_sets", "Profile sets of the administrator, taken or refused", ["outcome"],
            registry=registry,
        )  # fmt: skip
        for outcome in ("taken", "refused"):
            self._profile_sets.labels(outcome)
        self._firmware = Counter(
            "stromkreis_node_firmware", "Firmware of the administrator, by what became of it", ["outcome"],
            registry=registry,
        )  # fmt: skip
        for outcome in ("staged", "running", "refused", "rolled_back"):
            self._firmware.labels(outcome)
        self._deliveries = Counter(
            "stromkreis_node_deliveries", "Deliveries to market participants, by what came of an attempt", ["outcome"],
            registry=registry,
        )  # fmt: skip
        for outcome in ("delivered", "failed", "withheld"):
            self._deliveries.labels(outcome)
        self._cls_tunnels = Gauge(
            "stromkreis_node_cls_tunnels", "Tunnels between controllable systems and participants that are open",
            registry=registry,
        )  # fmt: skip
        self._cls_connections = Counter(
            "stromkreis_node_cls_connections", "Connections of controllable systems, by what became of them",
            ["outcome"], registry=registry,
        )  # fmt: skip
        for outcome in ("connected", "no_profile", "unreachable", "refused", "tls_handshake", "too_slow", "too_many"):
            self._cls_connections.labels(outcome)
        self._cls_bytes = Counter(
            "stromkreis_node_cls_bytes", "Application data through tunnels of controllable systems", ["direction"],
            registry=registry,
        )  # fmt: skip
        self._wakeups = Counter(
            "stromkreis_node_wakeups", "Wake-up messages, by what became of them", ["outcome"], registry=registry
        )
        for outcome in ("taken", "bad_wakeup", "wakeup_recipient", "wakeup_signature", "wakeup_time", "wakeup_replay"):
            self._wakeups.labels(outcome)
        self._clock_error = Gauge(
            "stromkreis_node_clock_error_seconds",
            "How far the clock may be off; NaN while it was never synchronised, or where the system's is trusted",
            registry=registry,
        )  # fmt: skip
        self._clock_error.set(float("nan"))
        clock = Gauge(
            "stromkreis_node_clock_offset_seconds",
            "Offset of the machine's clock that is being corrected; NaN where nobody synchronises it",
            registry=registry,
        )
        clock.set_function(clock_offset_s)
        self._carried_age = Gauge(
            "stromkreis_node_carried_age_seconds",
            "For how long the gateway that has waited longest has carried energy that is in no total yet",
            registry=registry,
        )
        self._lookups = Counter(
            "stromkreis_node_name_lookups", "Lookups of the coordinator's names, by whether they have an address",
            ["outcome"], registry=registry,
        )  # fmt: skip
        for outcome in ("found", "failed"):
            self._lookups.labels(outcome)
        self._store_write = Histogram(
            "stromkreis_node_store_write_duration_seconds", "One transaction of the store, its flush included",
            buckets=WRITE_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._store = Counter("stromkreis_node_store_errors", "Durable writes that failed", registry=registry)
        self._bytes = Counter(
            "stromkreis_node_link_bytes", "Payload bytes on ZeroMQ links", ["direction"], registry=registry
        )
        self._sent = self._bytes.labels("sent")  # looked up once: these count every message, and every round
        self._received = self._bytes.labels("received")
        self._opened, self._carried = self._settled.labels("opened"), self._settled.labels("carried")
        self._certificate = Gauge(
            "stromkreis_node_certificate_expiry_timestamp_seconds", "When the first certificate of a gateway here ends",
            registry=registry,
        )  # fmt: skip
        self._reconnects = Counter(
            "stromkreis_node_reconnects", "Links to the coordinator made again", registry=registry
        )

        # Series exist from the start: a rate over a counter that appears at its first event misses that event.
        for queue in ("outbox", "member_inbox", "head_inbox", "bills", "range_proofs"):
            self._dropped.labels(queue)
        for outcome in ("answered", "declined"):
            self._bills.labels(outcome)
        for event in ("reading_over_limit", "contribution_over_range"):
            self._notes.labels(event)
        for reason in _LIES:
            self._errors.labels(reason)

    def certificates(self, ends: Iterable[datetime]) -> None:
        """When the certificates of the gateways here end."""
        self._certificate.set(min(end.timestamp() for end in ends))

    def gateways(self, count: int) -> None:
        """How many gateways run."""
        self._gateways.set(count)

    def version(self, version: str) -> None:
        """The release that runs."""
        self._build.info({"version": version})

    def loop_lag(self, seconds: float) -> None:
        """A task waited so long for its turn."""
        self._loop_lag.observe(seconds)

    def readiness(self, counts: Callable[[], Counts]) -> None:
        """How many gateways are seated, linked and so on: asked for when the metrics are read."""
        for name, gauge in self._states.items():
            gauge.set_function(partial(lambda name: float(getattr(counts(), name)), name))

    def time_lapse(self, *, is_on: bool) -> None:
        """Whether this node takes part in a time lapse."""
        self._time_lapse.set(is_on)

    def waiting(self, count: Callable[[], int]) -> None:
        """How many gateways may not come back yet: asked for when the metrics are read."""
        self._waiting.set_function(count)

    def discipline(self, honest_floor: int, *, is_returns_limited: bool) -> None:
        """What this node keeps to whoever draws the rosters."""
        self._honest_floor.set(honest_floor)
        self._returns_limited.set(is_returns_limited)

    def leaving(self, count: Callable[[], int]) -> None:
        """How many gateways are about to leave for good: asked for when the metrics are read."""
        self._leaving.set_function(count)

    def carrying(self, count: Callable[[], int]) -> None:
        """How many gateways still release energy of missed rounds: asked for when the metrics are read."""
        self._carrying.set_function(count)

    def heads(self, change: int) -> None:
        """A gateway became head, or ceased to be."""
        self._heads.inc(change)

    def settled(self, *, included: bool) -> None:
        """A round we contributed to has ended."""
        (self._opened if included else self._carried).inc()

    def phase(self, name: str, seconds: float) -> None:
        """A head's note: a phase's duration, or an event."""
        if seconds > 0:
            self._phases.labels(name).observe(seconds)
        else:
            self._notes.labels(name).inc()

    def noted(self, name: str) -> None:
        """A member's note."""
        self._notes.labels(name).inc()

    def protocol_error(self, reason: str) -> None:
        """A message was refused."""
        self._errors.labels(reason).inc()

    def dropped(self, queue: str) -> None:
        """An event found a full queue."""
        self._dropped.labels(queue).inc()

    def bill(self, outcome: str) -> None:
        """A request for a bill was `answered` or `declined`."""
        self._bills.labels(outcome).inc()

    def wakeup(self, outcome: str) -> None:
        """A wake-up message was `taken`, or refused for a reason."""
        self._wakeups.labels(outcome).inc()

    def cls_connection(self, outcome: str) -> None:
        """A connection at the proxy for controllable systems, by what became of it."""
        self._cls_connections.labels(outcome).inc()

    def cls_tunnels(self, change: int) -> None:
        """One more is open, or one less."""
        self._cls_tunnels.inc(change)

    def cls_bytes(self, sent: int, received: int) -> None:
        """What a tunnel has carried, as the home sees it."""
        self._cls_bytes.labels("sent").inc(sent)
        self._cls_bytes.labels("received").inc(received)

    def profile_set(self, outcome: str) -> None:
        """A profile set was `taken` or `refused`."""
        self._profile_sets.labels(outcome).inc()

    def firmware(self, outcome: str) -> None:
        """Firmware was `staged`, is `running`, was `refused` or `rolled_back`."""
        self._firmware.labels(outcome).inc()

    def delivery(self, outcome: str) -> None:
        """An attempt to deliver ended: `delivered`, `failed` and tried again, or `withheld` for good."""
        self._deliveries.labels(outcome).inc()

    def time_answer(self, outcome: str) -> None:
        """A poll of the time service ended: `taken`, or a reason."""
        self._time_answers.labels(outcome).inc()

    def clock(self, error_us: Callable[[], int | None]) -> None:
        """`error_us` says how far the clock may be off, None while nobody knows."""

        def error_s() -> float:
            error = error_us()
            return float("nan") if error is None else error / 1_000_000

        self._clock_error.set_function(error_s)

    def carried_age(self, oldest_s: Callable[[], float]) -> None:
        """The age of the oldest carried energy: asked for when the metrics are read."""
        self._carried_age.set_function(oldest_s)

    def name_lookup(self, is_found: bool) -> None:
        """One of the coordinator's names was looked up."""
        self._lookups.labels("found" if is_found else "failed").inc()

    def store_write(self, seconds: float) -> None:
        """A transaction of the store took so long."""
        self._store_write.observe(seconds)

    def store_error(self) -> None:
        """A durable write failed."""
        self._store.inc()

    def sent(self, size: int) -> None:
        """Payload bytes sent."""
        self._sent.inc(size)

    def received(self, size: int) -> None:
        """Payload bytes received."""
        self._received.inc(size)

    def reconnected(self, times: int) -> None:
        """A link to the coordinator was made again."""
        self._reconnects.inc(times)
