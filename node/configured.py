"""From the configuration of a node to what its packages ask for: profiles, policies, keys, clock, the log's check."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from node.aggregation.beacon import CrowdPolicy
from node.aggregation.bills import BillingRules
from node.aggregation.log_check import LogCheck
from node.config import BillingConfig, MeteringLogConfig, MeterReadingConfig, NodeConfig, PolicyConfig
from node.gateway_config import GatewayConfig
from node.lmn.pairing import RenewalPolicy
from node.lmn.profiles import MeterProfile, profile_of_url
from node.lmn.runtime import check_profiles
from node.metering.retention import Retention
from node.metrics import NodeMetrics
from node.security.backend import KeyBackend
from node.security.backends import open_backend
from node.security.module import GatewaySecurityModule, KeyDirectory
from node.storage.engine import Store
from node.storage.repositories.enrolment_log import EnrolmentLogRepository
from node.timekeeping.clock import GatewayClock
from node.timekeeping.keeper import TimeKeeper, TimeServer
from protocol import pki
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.setup.calendar import CalendarPolicy
from protocol.dcnet.setup.epoch import Policy
from protocol.errors import LocalProtocolError, StromkreisError
from protocol.link.tls import client_context
from protocol.metering.interval import DAY_S


def root_certificate(config: NodeConfig) -> x509.Certificate:
    """The SM-PKI root that the node trusts.  Raises StromkreisError for a file that is none."""
    try:
        return x509.load_pem_x509_certificate(config.root_certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise StromkreisError(
            f"{config.root_certificate}: expected the SM-PKI root certificate in PEM ({type(error).__name__})"
        ) from error


def meter_profiles(gateway: GatewayConfig) -> list[MeterProfile]:
    """
    The gateway's meters as the LMN runtime wants them (see `profile_of_url`); keys are found by the id in the URL.

    Raises StromkreisError for a meter that cannot be, without repeating a key.
    """
    profiles = []
    for index, url in enumerate(gateway.meters):
        try:
            profiles.append(profile_of_url(url, f"{gateway.id}/{index}", gateway.keys))
        except ValueError as error:
            raise StromkreisError(f"gateway {gateway.id}: meter {index}: {error}") from None
    try:
        check_profiles(profiles)
    except LocalProtocolError as error:
        raise StromkreisError(f"gateway {gateway.id}: {error}") from None
    if unused := sorted(set(gateway.keys) - {profile.meter_id for profile in profiles}):
        raise StromkreisError(f"gateway {gateway.id}: keys of meter {unused[0]}, which no URL names with id=")
    return profiles


def policy_of(config: PolicyConfig) -> Policy:
    """The policy in the unit that goes into digests: parts in a million."""
    epsilon = config.noise_epsilon_max
    return Policy(
        corrupt_ppm=round(config.corrupt * 1_000_000), ring_size_min=config.ring_size_min,
        honest_floor=config.honest_floor, registers=frozenset(config.registers),
        epsilon_ppm_max=None if epsilon is None else round(epsilon * 1_000_000), power_w=config.noise_power_w,
        energy_wh=config.noise_energy_wh,
    )  # fmt: skip


def calendar_policy(config: PolicyConfig) -> CalendarPolicy:
    """The rules for the calendar, in seconds."""
    return CalendarPolicy(config.epoch_rounds_min, config.epoch_hours_max * 3600, time_lapse=config.time_lapse)


def crowd_policy(config: PolicyConfig) -> CrowdPolicy:
    """The rules for the members of an epoch."""
    return CrowdPolicy(config.area_size_confirmed, config.reveals_max)


def billing_rules(config: BillingConfig) -> BillingRules:
    """The rules in the units of the store: seconds."""
    return BillingRules(
        span_min_s=config.span_days_min * DAY_S,
        supplier=config.supplier,
        keep_s=config.keep_days * DAY_S,
        tariff=config.tariff,
    )


def renewal_policy(config: MeterReadingConfig) -> RenewalPolicy:
    """The policy with its days as durations; a date begins at midnight UTC."""
    after = config.certificates_issued_after
    return RenewalPolicy(
        timedelta(days=config.certificate_days), timedelta(days=config.renew_certificates_days),
        None if after is None else datetime(after.year, after.month, after.day, tzinfo=UTC),
    )  # fmt: skip


def retention(config: MeteringLogConfig) -> Retention:
    """How long the metering log keeps what, in seconds."""
    return Retention(config.keep_telegrams_s, config.keep_days * DAY_S)


def retention_of_meters(
    config: MeteringLogConfig, gateways: Sequence[GatewayConfig], profiles: Sequence[Sequence[MeterProfile]]
) -> dict[tuple[str, str], Retention]:
    """The same of each meter whose profile says something else, by gateway and meter."""
    return {
        (gateway.id, meter.device): Retention(
            meter.keep_telegrams_s or config.keep_telegrams_s, (meter.keep_days or config.keep_days) * DAY_S
        )
        for gateway, mine in zip(gateways, profiles, strict=True)
        for meter in mine
        if meter.keep_days is not None or meter.keep_telegrams_s is not None
    }


def time_keeper(config: NodeConfig, module: GatewaySecurityModule, metrics: NodeMetrics) -> TimeKeeper:
    """
    The process's clock, kept by the time service that the configuration names, asked with one gateway's certificate.

    Raises LocalProtocolError where that gateway has no TLS certificate.
    """
    host, _, port = str(config.time.server).rpartition(":")
    context = client_context(config.root_certificate)
    module.load_tls(context)
    clock = GatewayClock(time.time, time.monotonic)
    metrics.clock(lambda: clock.error_us)
    return TimeKeeper(
        clock, TimeServer(host, int(port), context), config.time.poll_s, module.random_bits, Random(module.identity),
        metrics.time_answer,
    )  # fmt: skip


def open_keys(config: NodeConfig, root: x509.Certificate) -> KeyDirectory:
    """
    The gateways' keys, which lie on the curve of the SM-PKI that certifies them; close them in the end.

    Raises StromkreisError for a root on another curve, or a token that cannot be used.
    """
    public_key = root.public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(public_key.curve, pki.CURVES):
        raise StromkreisError(f"{config.root_certificate}: expected an SM-PKI root on a curve of BSI TR-03116-3")
    return KeyDirectory(
        config.keys_path, StandardSuite(), backend=key_backend(config), curve=type(public_key.curve),
        seeds=config.seeds_path,
    )  # fmt: skip


def key_backend(config: NodeConfig) -> KeyBackend:
    """Files or the token, as the configuration says.  Raises StromkreisError for a token that cannot be used."""
    security = config.security
    pin = None if security.pin is None else security.pin.get_secret_value()
    return open_backend(config.keys_path, security.library, security.token_label, pin)


def log_check(config: NodeConfig, store: Store, log_key: bytes, timekeeper: TimeKeeper | None) -> LogCheck:
    """What holds the enrolment log against its pinned key and against what this node saw of it."""
    return LogCheck(
        EnrolmentLogRepository(store), partial(StandardSuite().verify, log_key),
        time.time if timekeeper is None else timekeeper.clock,
        config.policy.confirmed_log_head,
    )  # fmt: skip
