"""
The configuration of a node process: which gateways it hosts, which meters they read, whom they report to.

One section `[node]` of the configuration file; the loader belongs to the command line.  One gateway in the field and
thousands in a load test are the same section: gateways are listed one by one, or made by `[node.fleet]` from a count
and a pattern, and `all_gateways()` gives the one list that the fleet starts from.
"""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from node.config_section import ConfigSection
from node.firmware_config import FirmwareConfig
from node.gateway_config import AreaName, FleetConfig, GatewayConfig
from node.ordinal import filled, resolve
from protocol.dcnet.setup.schema import OWN_REGISTERS
from protocol.profiles.base import ObisText


def _web_address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port is None or parts.path not in {"", "/"}:
        raise ValueError("an address of the form http://HOST:PORT or https://HOST:PORT")
    return text.rstrip("/")


def _listen_endpoint(text: str) -> str:
    found = re.fullmatch(r"tcp://[^/]+:(?:\*|(\d{1,5})(?:-(\d{1,5}))?)", text)
    if found is None or not int(found[1] or 0) <= int(found[2] or found[1] or 0) <= _PORT_MAX:
        raise ValueError("tcp://HOST:PORT, with * for any free port or FIRST-LAST for one of these")
    return text


WebAddress = Annotated[str, AfterValidator(_web_address)]
_PORT_MAX = 65_535


class LinkConfig(ConfigSection):
    """The ring link: where this node's gateways accept their ring's members while they are head."""

    mode: Literal["direct", "relay"] = "direct"
    """direct: members connect to the head. relay: the coordinator passes the same end-to-end protected messages on,
    for gateways behind NAT that can only call out; costs the coordinator all ring traffic and one more hop of
    latency."""

    listen: Annotated[str, AfterValidator(_listen_endpoint)] = "tcp://127.0.0.1:*"
    """Where a head listens: port * takes a free one a head, and 7400-7499 one of these, for a firewall. A process needs
    as many as gateways of it may be heads at once, two for each of their rings."""

    public_host: str | None = None
    """Host that members connect to, if it differs from the one in `listen` (NAT, container)."""


class MeterReadingConfig(ConfigSection):
    """How meters are read."""

    reconnect_s_max: Annotated[float, Field(gt=0, le=3_600)] = 60.0
    """Longest pause between attempts to reach a silent meter: 0.5, 1, 2, 4 ... s up to this. Raising it spares the
    link and finds a meter that is back later."""

    certificate_days: Annotated[int, Field(ge=2, le=36_525)] = 2_557
    """Days for which a renewed certificate of the wired LMN (lks1) holds; 2557 are seven years. What may be set stands
    in TR-03109-3. Raising it renews seldom and lets a stolen key be used for longer."""

    renew_certificates_days: Annotated[int, Field(ge=1, le=3_650)] = 90
    """Days before its end at which such a certificate, the gateway's or the meter's, is renewed with a new key. Past
    its end a meter is not read until it is paired anew. Raising it leaves more time for a meter that is away."""

    certificates_issued_after: date | None = None
    """Renew all such certificates that were made before this date, for example 2026-11-26: after a key was lost or an
    algorithm has fallen. None: only those that end."""

    @model_validator(mode="after")
    def _renewals_end(self) -> Self:
        if 2 * self.renew_certificates_days > self.certificate_days:
            raise ValueError("renew_certificates_days at most half of certificate_days, or each session would renew")
        return self


class MeteringLogConfig(ConfigSection):
    """What the metering log keeps (docs/howto/operations.md, metering log).  It is encrypted."""

    keep_days: Annotated[int, Field(ge=1, le=3_660)] = 400
    """Days for which the values of registration times (quarter hours) are kept. Raising it costs some 3 KB a day, meter
    and register."""

    keep_telegrams_s: Annotated[int, Field(ge=900, le=172_800)] = 3_600
    """Seconds for which all other telegrams are kept. Raising it lets a subscriber of the log be away for longer, and
    costs some 200 bytes a telegram."""


class SecurityConfig(ConfigSection):
    """Where the gateways' private keys are, and how their certificates are kept alive."""

    library: Path | None = None
    """PKCS#11 library of a token, for example /usr/lib/softhsm/libsofthsm2.so. The token holds signature and decryption
    keys and the key that seals all others. None: keys are files, which only their owner may read."""

    token_label: str = "stromkreis"  # noqa: S105 - a name, no secret
    """Label of the token that holds the keys."""

    pin: SecretStr | None = None
    """User PIN of the token; better from the environment (STROMKREIS_NODE__SECURITY__PIN) than from a file."""

    renew_certificates_days: Annotated[int, Field(ge=1, le=365)] = 60
    """Days before the end of a gateway's certificates at which new ones are asked for, with new keys. Raising it leaves
    more time for a coordinator that is away and renews more often."""

    revocation_check_s: Annotated[float, Field(gt=0, le=86_400)] = 900.0
    """Seconds between two looks for new revocation lists and certificates to renew. Raising it spares the link; a
    neighbour that was revoked is believed for that much longer."""

    @model_validator(mode="after")
    def _token_is_complete(self) -> Self:
        if self.library is not None and self.pin is None:
            raise ValueError("pin together with library: a token opens with its PIN")
        return self


class TimeConfig(ConfigSection):
    """Where the gateways' time comes from."""

    server: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,253}:\d{1,5}$")] | None = None
    """HOST:PORT of the administrator's time service (NTP over TLS, `[coordinator.time]`). None: the system's clock is
    trusted, which something else must then keep right."""

    poll_s: Annotated[float, Field(ge=60, le=86_400)] = 3_600.0
    """Seconds between two looks at the time service. Raising it spares the link; the clock drifts by 50 millionths in
    between at worst, and values are billed only while it is right within 3 % of the registration period."""


class PolicyConfig(ConfigSection):
    """What this node's gateways insist on, whatever the coordinator announces."""

    corrupt: Annotated[float, Field(ge=0, lt=0.5)] = 0.01
    """Smallest γ (share of gateways that may collude with head and coordinator) that an epoch must be cut for. Raising
    it refuses epochs of a coordinator that assumes less."""

    ring_size_min: Annotated[int, Field(ge=3, le=1_024)] = 5
    """Smallest ring to take part in. Raising it hides a reading among more members and refuses small areas."""

    honest_floor: Annotated[int, Field(ge=2, le=512)] = 30
    """Honest members that every total has at least, n_min less the corrupt: an area needs 46 gateways for 30 where 1 %
    may be corrupt. Below 30 a household shows in totals of rosters that a coordinator chooses, and totals of power are
    refused (`power = false` in the coordinator's configuration)."""

    registers: Annotated[tuple[ObisText, ...], Field(min_length=1, max_length=64)] = tuple(sorted(OWN_REGISTERS))
    """OBIS codes that may be summed. Adding one that few meters have, such as reactive energy, lets a coordinator that
    is the administrator, too, make totals of which all but one household's part is 0."""

    limit_returns: bool = True
    """Count how often a gateway comes back into totals: four times at once, and once more every four hours; without
    a return left it waits. False, for laboratories and load tests: a head that leaves a gateway out of every second
    total then learns its consumption."""

    contribute_without_profile: bool = False
    """Contribute all registers that an area's totals hold, of all meters, while a gateway has no profile set: for nodes
    without a gateway administrator, laboratories and load tests. The first set that is rolled out ends it for good.
    False: the signed processing profiles alone decide (docs/howto/profiles.md)."""

    area_size_confirmed: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Gateways of an area that has really shrunk. A gateway takes part in no epoch of less than 80 % of the largest
    area that it saw in the last 90 days; the largest then counts as no more than this. None: nothing is confirmed."""

    log_head_confirmed: Annotated[str, Field(pattern=r"^[1-9]\d{0,9}:[0-9a-f]{64}$")] | None = None
    """SIZE:ROOT of the enrolment log (`stromkreis audit verify` prints it), where its operator has lost the log's end
    or all of it: each gateway goes on from this head once, though it does not continue what that saw. Set it only
    after the operator has explained the loss: a log that is rewritten hides inventions."""

    reveals_max: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Times in 24 hours that a gateway shows its value for drawing rings. Raising it lets epochs be shorter, and a
    coordinator that withholds values choose among so many orders of the ring: for laboratories and load tests."""

    epoch_rounds_min: Annotated[int, Field(ge=1, le=104)] = 16
    """Fewest rounds of an epoch. Lowering it lets the coordinator lay out rings more often, and each layout tells who
    was there."""

    epoch_hours_max: Annotated[int, Field(ge=1, le=168)] = 26
    """Longest epoch, in hours of metering time. Raising it keeps keys for longer before they are deleted."""

    time_lapse: bool = False
    """Take part in epochs whose intervals of metering time pass in less real time: for laboratories and load tests.
    A period of a second gives the power of single households away, so never set it where people live."""

    noise_epsilon_max: Annotated[float, Field(gt=0, le=50)] | None = None
    """Largest ε of a total: epochs whose totals are less noisy are refused, and those with commitments, which cannot be
    noisy. None: totals need no noise."""

    noise_power_w: Annotated[int, Field(ge=1, le=1_000_000)] = 24_000
    """With `noise_epsilon_max`: change of power by one household that the noise must hide; 24 kW are 3 x 35 A."""

    noise_energy_wh: Annotated[int, Field(ge=1, le=1_000_000)] = 6_000
    """With `noise_epsilon_max`: change of energy that the noise must hide; 6 kWh are 24 kW for a quarter hour."""

    @property
    def confirmed_log_head(self) -> tuple[int, bytes] | None:
        """Size and root of `log_head_confirmed`."""
        if self.log_head_confirmed is None:
            return None
        size, _, root = self.log_head_confirmed.partition(":")
        return int(size), bytes.fromhex(root)


class BillingConfig(ConfigSection):
    """What this node's gateways answer when they are asked for a bill (docs/explanation/protocol.md, bills)."""

    keep_days: Annotated[int, Field(ge=1, le=1_500)] = 100
    """Days for which committed values wait for their bill; then they are deleted and can never be billed. Raising it
    keeps readings, some 10 KB a day and gateway, for longer."""

    span_days_min: Annotated[int, Field(ge=7, le=366)] = 27
    """Fewest days of metering time that a bill reaches over. Raising it says less of a household and delays bills."""

    tariff: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Name of the tariff that the gateways' customers have, for example Dynamic; `tariff` of a gateway goes before it.
    Bills by tariffs of other names are declined. None: any tariff that epoch calls list, one for each interval."""

    supplier: Annotated[str, Field(max_length=64)] | None = None
    """Common name of the only market participant whose tariffs count, for example Stromkreis.EMT. None: any that the
    SM-PKI has certified for signatures."""

    @model_validator(mode="after")
    def _values_live_until_a_bill(self) -> Self:
        if self.keep_days < self.span_days_min + 7:
            raise ValueError(
                f"keep_days = {self.keep_days}: values would be deleted before they can be billed, expected at least"
                f" {self.span_days_min + 7} (a week more than span_days_min)"
            )
        return self


class NodeConfig(ConfigSection):
    """Section `[node]`."""

    data_dir: Path = Path("var/node")
    """Directory of everything durable: register store and keys, one of each a process. Never put an older copy of it
    back: a reading would be contributed twice (docs/howto/operations.md says what to back up)."""

    seeds_dir: Path | None = None
    """Directory of the epoch seeds (epochs.sqlite), by which a restarted node goes on within its epoch. None: keys/ in
    data_dir. In memory (a tmpfs) no disk can give old seeds away; after a restart of the machine, or of a pod, the
    gateways sit out until the next epoch."""

    coordinator: WebAddress = "https://127.0.0.1:7381"
    """The coordinator's HTTPS address, for enrolment; it answers with the ZeroMQ endpoint and its key."""

    root_certificate: Path
    """PEM file of the SM-PKI root: what this node trusts, and all it trusts. Bring it by a way of its own."""

    area: AreaName = "default"
    """Grid area that the gateways stand in, as the coordinator names it; the operator learns its total."""

    token: SecretStr | None = None
    """Enrolment token of the area, from the operator. Needed once, until the gateways are enrolled."""

    token_file: Path | None = None
    """File with the token, read when a gateway without one of its own enrols: a Secret of a cluster, for example."""

    gateways: tuple[GatewayConfig, ...] = ()
    """The gateways of this process, one by one."""

    fleet: FleetConfig | None = None
    """Gateways alike, for load tests: number i reads the meter at port first_port + i."""

    drain_s: Annotated[float, Field(ge=0, le=3_600)] = 20.0
    """Longest time that a node which is told to stop waits for the rounds under way to end. Raising it spares slow
    rings an attempt; keep it below the grace period of whatever stops the process."""

    starts_per_s: Annotated[float, Field(gt=0, le=10_000)] = 250.0
    """Gateways of this process that begin in a second. Raising it has a large process whole sooner, and its keys,
    connections and first messages all at once."""

    link: LinkConfig = LinkConfig()

    lmn: MeterReadingConfig = MeterReadingConfig()

    metering: MeteringLogConfig = MeteringLogConfig()

    security: SecurityConfig = SecurityConfig()

    time: TimeConfig = TimeConfig()

    policy: PolicyConfig = PolicyConfig()

    billing: BillingConfig = BillingConfig()

    firmware: FirmwareConfig = FirmwareConfig()

    wake_up: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}:\d{1,5}$")] | None = None
    """HOST:PORT (UDP) for wake-up messages of the administrator, upon which new profile sets are asked for at once.
    None: the node asks every profile_poll_s only."""

    profile_poll_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """Seconds between two questions for new profile sets, one for up to 128 gateways. Raising it spares the link and
    delays a roll-out."""

    metrics: WebAddress = "http://127.0.0.1:7390"
    """Where /metrics, /healthz and /readyz are served; port 0 takes a free one."""

    @property
    def store_path(self) -> Path:
        """The SQLite file of the register store."""
        return self.data_dir / "registers.sqlite"

    @property
    def keys_path(self) -> Path:
        """The directory of the file-backed security modules."""
        return self.data_dir / "keys"

    @property
    def seeds_path(self) -> Path:
        """The SQLite file of the epoch seeds."""
        return (self.keys_path if self.seeds_dir is None else self.seeds_dir) / "epochs.sqlite"

    def all_gateways(self) -> tuple[GatewayConfig, ...]:
        """Every gateway that this process hosts: the listed ones, then the fleet's; area and token filled in."""
        listed = self.gateways + (self.fleet.gateways() if self.fleet is not None else ())
        return tuple(
            gateway.model_copy(update={"area": gateway.area or self.area, "token": gateway.token or self.token})
            for gateway in listed
        )

    @model_validator(mode="before")
    @classmethod
    def _ordinal_stands_in_texts(cls, section: Any) -> Any:
        if not isinstance(section, dict):
            return section
        fleet = section.get("fleet")
        if isinstance(fleet, dict) and fleet.get("ordinal") is not None:
            ordinal = resolve(fleet["ordinal"])
            fleet = {"prefix": "ESTK{ordinal:04}", **fleet, "ordinal": ordinal}
            if "{ordinal" not in str(fleet["prefix"]):
                raise ValueError("{ordinal} in fleet.prefix, or all processes would have gateways of the same ids")
            return filled({**section, "fleet": fleet}, ordinal)
        return filled(section, None)

    @model_validator(mode="after")
    def _has_gateways(self) -> Self:
        ids = [gateway.id for gateway in self.all_gateways()]
        if not ids:
            raise ValueError("at least one gateway: [[node.gateways]] with id and meters, or [node.fleet] with count")
        if len(set(ids)) != len(ids):
            raise ValueError("gateways of different ids")
        return self
