"""
What an account may see of its gateway: lists and contents of resources, read when they are asked for.

All of it runs in a worker thread on a reader of its own, so that nobody who looks holds up a meter or a ring.  A
consumer's view is built from the names of its own meters; whatever belongs to others is not refused but is not there.
A technician's has no method that reads a value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from node.han import models
from node.han.accounts import Account, Accounts, Role
from node.han.consumption import intervals, moment, register_value
from node.han.contracts import contract_parts, sets_up_to
from node.han.derived import running_period, shown_period
from node.han.displayed import DisplayedValues
from node.han.facts import GatewayFacts, HanServices, MeterFacts
from node.han.program import program_sha256
from node.han.query import Query
from node.han.signing import ValueSigner
from node.metering.entries import LoggedReading
from node.metering.history import newest_values, registered_values
from node.storage.engine import Store
from node.storage.repositories.gateway_logs import GatewayLogReader
from node.storage.repositories.metering_log import MeteringLogReader
from node.storage.repositories.profile_sets import ProfileSetRepository
from node.storage.repositories.use_cases import UseCaseRepository
from protocol.errors import RemoteProtocolError
from protocol.logs.chain import ChainedEntry
from protocol.logs.events import BY_NUMBER, Language, Level, Log, text_of
from protocol.metering.interval import DAY_S
from protocol.metering.obis import Obis, is_cumulative
from protocol.profiles.meter import MeterProfile
from protocol.profiles.processing import Delivery, ProcessingProfile, Recipient

SPAN_DAYS_MAX: Final = 366
RECORDS_MAX: Final = 40_000
"""Of one answer: a register's year in quarter hours."""
LOG_RECORDS_MAX: Final = 1_000
PERIODS_MAX: Final = 36
_AHEAD_US: Final = 3_600_000_000


class NotThere(Exception):
    """No such resource for this account."""


class View:
    """
    One gateway's resources; `certificate` is its own for the home (DER).

    Methods that read raise StoreError and SealError.
    """

    def __init__(
        self, facts: GatewayFacts, services: HanServices, accounts: Accounts, certificate: bytes
    ) -> None:  # fmt: skip
        self.facts = facts
        self._certificate = certificate
        self._services = services
        self._accounts = accounts
        self._metering = MeteringLogReader(services.reader.read, services.reader.cipher)
        self._logs = GatewayLogReader(services.reader.read, services.reader.cipher)
        store = cast(Store, services.reader)  # they only read here, which is what the reader has of a store
        self._use_cases = UseCaseRepository(store)
        self._profile_sets = ProfileSetRepository(store)
        self._displayed = DisplayedValues(facts.clock)
        self.signer = ValueSigner(facts.module)
        self.self_test = models.SelfTest(at=None, is_passed=None, checks=())

    # --- which resources there are --------------------------------------------------------------------------------

    @property
    def gateway_id(self) -> str:
        """The gateway's id as a resource id."""
        return self.facts.identity.lower()

    def meter_ids(self, account: Account) -> list[str]:
        """The account's meters; all of them for a technician."""
        return [each.resource_id for each in self._meters(account)]

    def profile_ids(self, account: Account) -> list[str]:
        """The processing profiles of the account's metering points."""
        return [each.id for each in self._processing(account)]

    def own_id(self, account: Account) -> list[str]:
        """The account itself."""
        return [account.user]

    def only_gateway(self, _account: Account) -> list[str]:
        """The gateway itself."""
        return [self.gateway_id]

    def certificate_ids(self, _account: Account) -> list[str]:
        """Certificates by their purpose."""
        return list(self.certificates)

    # --- contents ---------------------------------------------------------------------------------------------------

    def device(self, _account: Account, _name: str, _query: Query) -> models.Device:
        """The gateway."""
        facts = self.facts
        return models.Device(
            id=self.gateway_id, software_version=facts.version, software_sha256=program_sha256(),
            time=moment(facts.clock()), is_time_good=facts.is_time_good(), is_in_ring=facts.ring().is_in_ring,
            profiles_version=facts.profiles.version,
        )  # fmt: skip

    def meter(self, account: Account, name: str, _query: Query) -> models.Meter:
        """One of the consumer's meters."""
        found = self._meter(account, name)
        profile = self._meter_profile(found)
        grid = self.facts.grid()
        return models.Meter(
            id=name, meter=found.meter_id, protocol=found.protocol,
            metering_points=tuple(
                dict.fromkeys(
                    each.metering_point
                    for each in self._processing(account)
                    if found.device in self.facts.profiles.devices_of(each)
                )
            ),
            registers=tuple(map(str, self._registers(found))),
            registration_period_s=grid.interval_s if grid is not None else 900,
            display_interval_s=None if profile is None else profile.display_interval_s,
        )  # fmt: skip

    def reading(self, account: Account, name: str, _query: Query) -> models.Reading:
        """The present values of one of the consumer's meters, new ones once in its display interval."""
        found = self._meter(account, name)
        shown = self._displayed.of(found.device, self._newest(found), self._meter_profile(found))
        mine = [each for each in shown if account.owned.has(found.device, each.measured_ms / 1000)]
        return models.Reading(meter=name, values=tuple(map(register_value, mine)))

    def readings(self, account: Account, name: str, query: Query) -> models.ReadingExport:
        """Its values at registration times; without a start those of the last 24 hours."""
        found = self._meter(account, name)
        from_s, to_s = self._span(query)
        records = [
            register_value(each)
            for obis in self._registers(found)
            if query.obis in (None, obis)
            for each in self._registered(account, found, obis, from_s, to_s)
        ]
        return models.ReadingExport(
            meter=name, from_time=moment(from_s), to_time=moment(to_s), records=_cut(records, query.count)
        )

    def intervals(self, account: Account, name: str, query: Query) -> models.IntervalExport:
        """Its energy by registration periods; without a start of the last 24 hours."""
        found = self._meter(account, name)
        from_s, to_s = self._span(query)
        grid = self.facts.grid()
        period_s = 900 if grid is None else grid.interval_s
        records = [
            each
            for obis in self._registers(found)
            if is_cumulative(obis) and query.obis in (None, obis)
            # The value at the end itself is the end of the last interval.
            for each in intervals(self._by_period(account, found, obis, from_s, to_s + 1), period_s)
        ]
        return models.IntervalExport(
            meter=name, from_time=moment(from_s), to_time=moment(to_s), records=_cut(records, query.count)
        )

    def contract(self, account: Account, _name: str, _query: Query) -> models.Contract:
        """What the consumer may see, and by which contracts."""
        current = self.facts.profiles.current
        sets = [] if current is None else list(sets_up_to(current, self._profile_sets))
        parts = contract_parts(account, sets, moment(self.facts.clock()))
        return models.Contract(user=account.user, meters=tuple(self.meter_ids(account)), contracts=parts)

    def use_case(self, account: Account, name: str, _query: Query) -> models.UseCase:
        """A processing profile of the consumer's: who gets what, in which form, how often."""
        profile = next((each for each in self._processing(account) if each.id == name), None)
        if profile is None:
            raise NotThere
        return models.UseCase(
            id=profile.id, metering_point=profile.metering_point, obis=profile.obis, taf=profile.use_case.taf,
            registration_period_s=profile.registration_period_s, valid_from=profile.valid_from,
            valid_to=profile.valid_to, retention_days=profile.retention_days,
            receivers=tuple(self._receiver(profile, each) for each in profile.recipients),
        )  # fmt: skip

    def registers(self, account: Account, name: str, _query: Query) -> models.Registers:
        """The registers of its closed billing periods, and of the running one."""
        profile = next((each for each in self._processing(account) if each.id == name), None)
        if profile is None:
            raise NotThere
        starts = self._use_cases.closed(self.facts.identity, name)[-PERIODS_MAX:]
        results = [self._use_cases.result(self.facts.identity, name, each) for each in starts]
        running = running_period(
            self._use_cases, self._registered_by_name, self.facts.identity, profile,
            self.facts.profiles.devices_of(profile), self._registration_s(),
        )  # fmt: skip
        periods = tuple(
            shown_period(each, is_running=each is running)
            for each in (*results, running)
            if each is not None and account.owned.has(profile.metering_point, each.start_s, each.end_s)
        )
        return models.Registers(profile=name, taf=profile.use_case.taf, periods=periods)

    def aggregation(self, account: Account, _name: str, _query: Query) -> models.Aggregation:
        """In which sums the gateway's values leave."""
        ring, grid = self.facts.ring(), self.facts.grid()
        return models.Aggregation(
            area=ring.area, is_in_ring=ring.is_in_ring, households_min=ring.honest_floor,
            interval_s=None if grid is None else grid.interval_s, registers=ring.registers,
            is_carrying=ring.is_carrying and account.role is Role.CONSUMER,
        )  # fmt: skip

    def consumer_log(self, account: Account, _name: str, query: Query) -> models.LogExport:
        """The consumer's log: entries that name it, and where it is the only consumer those that name nobody."""
        consumers = [each for each in self._accounts.all() if each.role is Role.CONSUMER]
        points = {point for each in account.contracts for point in each.metering_points}

        def is_own(entry: ChainedEntry) -> bool:
            user, point = entry.parameters.get("user"), entry.parameters.get("metering_point")
            if user is None and point is None:
                return len(consumers) == 1 and account.owned.has_some(entry.at_ms / 1000)
            return user == account.user or (point in points and account.owned.has(str(point), entry.at_ms / 1000))

        return self._log(Log.CONSUMER, query, is_own)

    def system_log(self, _account: Account, _name: str, query: Query) -> models.LogExport:
        """The system log, for technicians."""
        return self._log(Log.SYSTEM, query, lambda _entry: True)

    def certificate(self, _account: Account, name: str, _query: Query) -> models.Certificate:
        """A certificate of the gateway."""
        der = self.certificates.get(name)
        if der is None:
            raise NotThere
        found = x509.load_der_x509_certificate(der)
        return models.Certificate(
            id=name, subject=found.subject.rfc4514_string(), issuer=found.issuer.rfc4514_string(),
            not_before=found.not_valid_before_utc, not_after=found.not_valid_after_utc,
            sha256=hashlib.sha256(der).hexdigest(), pem=found.public_bytes(Encoding.PEM).decode(),
        )  # fmt: skip

    def last_self_test(self, _account: Account, _name: str, _query: Query) -> models.SelfTest:
        """The newest result."""
        return self.self_test

    def network(self, _account: Account, _name: str, _query: Query) -> models.Network:
        """Where the gateway speaks and listens, for technicians."""
        network = self._services.network
        return models.Network(
            coordinator=network.coordinator, link=network.link, time_server=network.time_server,
            han_listen=self._services.listen.get(self.facts.identity, ""),
        )  # fmt: skip

    def meter_status(self, account: Account, name: str, _query: Query) -> models.MeterStatus:
        """Whether a meter speaks, for technicians."""
        found = self._meter(account, name)
        heard = [each.received_ms for each in self._newest(found)]
        last = moment(max(heard) / 1000) if heard else None
        return models.MeterStatus(id=name, protocol=found.protocol, last_heard=last)

    # --- how it is found --------------------------------------------------------------------------------------------

    def _meters(self, account: Account) -> list[MeterFacts]:
        if account.role is Role.TECHNICIAN:
            return list(self.facts.meters)
        return [each for each in self.facts.meters if each.device in account.meters]

    def _meter(self, account: Account, name: str) -> MeterFacts:
        for each in self._meters(account):
            if each.resource_id == name:
                return each
        raise NotThere

    def _meter_profile(self, meter: MeterFacts) -> MeterProfile | None:
        current = self.facts.profiles.current
        for each in () if current is None else current.meters:
            if each.device in {meter.device, meter.meter_id}:
                return each
        return None

    def _processing(self, account: Account) -> list[ProcessingProfile]:
        points = {point for each in account.contracts for point in each.metering_points}
        current = self.facts.profiles.current
        mine = [] if current is None else [each for each in current.processing if each.metering_point in points]
        return [each for each in mine if account.owned.touches(each.metering_point, each)]

    def _receiver(self, profile: ProcessingProfile, recipient: Recipient) -> models.Receiver:
        current = self.facts.profiles.current
        wan = () if current is None else current.wan
        is_summed = recipient.delivery is Delivery.AGGREGATED
        billing = profile.billing_period
        period = f"P{billing.days}D" if billing.days else f"P{billing.months}M"
        return models.Receiver(
            participant=recipient.participant,
            address=next((each.uri for each in wan if each.id == recipient.communication), None),
            delivery=recipient.delivery.value, every=f"PT{profile.registration_period_s}S" if is_summed else period,
            households_min=self.facts.ring().honest_floor if is_summed else None,
        )  # fmt: skip

    def _newest(self, meter: MeterFacts) -> list[LoggedReading]:
        return newest_values(self._metering, self.facts.identity, meter.device, self._now_us())

    def _registers(self, meter: MeterFacts) -> list[Obis]:
        kept = {obis for name, obis in self._metering.registers(self.facts.identity) if name == meter.device}
        return sorted(kept | {each.obis for each in self._newest(meter)})

    def _registered(
        self, account: Account, meter: MeterFacts, obis: Obis, from_s: int, to_s: int
    ) -> list[LoggedReading]:  # fmt: skip
        found = self._registered_by_name(meter.device, obis, from_s, to_s)
        return [each for each in found if account.owned.has(meter.device, each.registration_s or 0)]

    def _by_period(
        self, account: Account, meter: MeterFacts, obis: Obis, from_s: int, to_s: int
    ) -> list[LoggedReading]:  # fmt: skip
        """Its values at the gateway's registration times, without those of profiles with shorter periods."""
        grid, found = self.facts.grid(), self._registered(account, meter, obis, from_s, to_s)
        return [each for each in found if grid is None or grid.has(each.registration_s or 0)]

    def _registered_by_name(self, device: str, obis: Obis, from_s: int, to_s: int) -> list[LoggedReading]:
        return registered_values(
            self._metering, self.facts.identity, self._now_us() + _AHEAD_US, device, obis, from_s, to_s
        )

    def _registration_s(self) -> int:
        """The newest registration time, metering time."""
        now_s = self.facts.clock()
        grid = self.facts.grid()
        return int(now_s) if grid is None else grid.registration_s(grid.index_at(now_s))

    def _now_us(self) -> int:
        return int(self.facts.clock() * 1_000_000)

    def _span(self, query: Query) -> tuple[int, int]:
        """From and to in metering time; the present time is the newest registration time, and counts."""
        now_s = self._registration_s()
        to_s = now_s + 1 if query.to_s is None else min(query.to_s, now_s + 1)
        from_s = min(to_s, now_s) - DAY_S if query.from_s is None else query.from_s
        if to_s - from_s > SPAN_DAYS_MAX * DAY_S:
            raise RemoteProtocolError("bad_query", f"q.fromtime: expected at most {SPAN_DAYS_MAX} days before q.totime")
        return from_s, max(from_s, to_s)

    def _log(self, which: Log, query: Query, is_shown: Callable[[ChainedEntry], bool]) -> models.LogExport:
        """The newest entries that fit, the oldest first."""
        now_s = self.facts.clock()
        to_s = now_s + 1 if query.to_s is None else min(query.to_s, now_s + 1)
        wanted = min(query.count or LOG_RECORDS_MAX, LOG_RECORDS_MAX)
        gateway = self.facts.identity
        last = self._logs.newest_number(gateway, which)
        found: list[models.LogEntry] = []
        while last > 0 and len(found) < wanted:
            first = max(0, last - LOG_RECORDS_MAX)
            page = self._logs.entries(gateway, which, after=first, limit=last - first)
            for each in reversed(page):
                if query.from_s is not None and each.at_ms < query.from_s * 1000:
                    first = 0
                    break
                shown = _log_entry(each)
                fits = query.level in (None, shown.level) and query.type in (None, str(shown.type))
                if fits and each.at_ms < to_s * 1000 and is_shown(each) and len(found) < wanted:
                    found.append(shown)
            last = first
        return models.LogExport(
            log="consumer" if which is Log.CONSUMER else "system",
            from_time=None if query.from_s is None else moment(query.from_s), to_time=moment(to_s),
            records=tuple(reversed(found)),
        )  # fmt: skip

    @property
    def certificates(self) -> dict[str, bytes]:
        """The gateway's certificates and that of the CA above them (DER), by purpose."""
        module = self.facts.module
        wan = zip(("signature", "encryption", "tls"), module.certificates, strict=False)
        return {"han": self._certificate, **dict(wan), **dict(zip(("sub-ca",), module.intermediates, strict=False))}


def _cut(records: Sequence[models.Resource], count: int) -> tuple:  # type: ignore[type-arg]
    kept = records[:count] if count else records
    if len(kept) > RECORDS_MAX:
        raise RemoteProtocolError(
            "bad_query", f"over {RECORDS_MAX} records: expected q.obis, q.count or a shorter span"
        )
    return tuple(kept)


def _log_entry(entry: ChainedEntry) -> models.LogEntry:
    kind = BY_NUMBER.get(entry.event)
    return models.LogEntry(
        number=entry.number, at=moment(entry.at_ms / 1000), level=(Level.INFO if kind is None else kind.level).value,
        type=entry.event, german=text_of(entry.event, entry.parameters, Language.GERMAN),
        english=text_of(entry.event, entry.parameters, Language.ENGLISH),
    )  # fmt: skip
