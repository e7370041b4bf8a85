"""
The configuration of a coordinator, with units, formulas and what raising or lowering each value costs.

One section `[coordinator]` of the configuration file; the loader (file, environment, error texts) belongs to the
command line, so that this model stays plain data that a test builds directly.  Every default is the field's: a
quarter hour is a quarter hour.  The demo only turns `epoch.period_s` down and gives `epoch.origin_unix_s`.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, IPvAnyNetwork, model_validator

from coordinator.config_section import ConfigSection
from coordinator.epoch_config import EpochConfig
from coordinator.oidc_config import OidcConfig
from coordinator.recipients import TotalsRecipient, check_distinct, check_recipients, with_recipients
from protocol.dcnet.setup.schema import Schema


def _zmq_endpoint(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "tcp" or not parts.hostname or parts.port is None or parts.path:
        raise ValueError("an endpoint of the form tcp://HOST:PORT")
    return text


def _web_address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port is None or parts.path not in {"", "/"}:
        raise ValueError("an address of the form http://HOST:PORT or https://HOST:PORT")
    return text.rstrip("/")


def _not_mapped(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """Who calls from ::ffff:192.0.2.1 counts as 192.0.2.1, so such a network would never match."""
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise ValueError("the network in the form of IPv4, 192.0.2.0/24")
    return network


ZmqEndpoint = Annotated[str, AfterValidator(_zmq_endpoint)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
ProxyNetwork = Annotated[IPvAnyNetwork, AfterValidator(_not_mapped)]
AreaName = Annotated[str, Field(pattern=r"^[^\s](.{0,62}[^\s])?$")]


class Role(StrEnum):
    """Which part of a coordinator one process is; all of it by default."""

    GWA = "gwa"
    """Gateway administrator: SM-PKI, enrolment, directory."""
    EMP = "emp"
    """Market participant: totals, tariffs, bills."""
    RINGS = "rings"
    """Ring service: what gateways call; epochs, rings, round ledger, dashboard."""
    ALL = "all"

    def does(self, other: Role) -> bool:
        """Whether a process of this role does what `other` does."""
        return self in {other, Role.ALL}


class WebConfig(ConfigSection):
    """Dashboard, REST, enrolment, /metrics, /healthz and /readyz."""

    listen: Annotated[tuple[WebAddress, ...], Field(min_length=1)] = ("https://127.0.0.1:7381", "http://127.0.0.1:7380")
    """Where the web server listens; port 0 takes a free one. Gateways enrol over https only. http is for people and
    Prometheus on the same machine or behind a reverse proxy."""

    public_url: WebAddress | None = None
    """The address for browsers and gateways, if it differs from `listen` (reverse proxy, container)."""

    proxies: Annotated[tuple[ProxyNetwork, ...], Field(max_length=64)] = ()
    """Addresses or networks of the reverse proxies before it. Their X-Forwarded-For says who called: for failed
    log-ins, the audit log, wake-up messages. Nobody else's is read. Naming more lets whoever is there say who it is."""

    certificate: Path | None = None
    """PEM file with the server's certificate chain, for https. None: the one of the demo SM-PKI."""

    private_key: Path | None = None
    """PEM file with the server's private key, for https."""

    participants: Annotated[str, Field(pattern=r"^https://[^/\s]+:\d{1,5}$")] | None = None
    """Role gwa: https://HOST:PORT where market participants order tunnels, with mutual TLS. None: there are none."""

    totals: Annotated[str, Field(pattern=r"^https://[^/\s]+:\d{1,5}$")] | None = None
    """Role emp: https://HOST:PORT where market participants fetch the totals that are for them, with mutual TLS. None:
    totals are at `listen` alone, which shows all of them and is for the coordinator's own operator. Where it is set
    totals and dashboard at `listen` want a log-in over https."""

    @model_validator(mode="after")
    def _https_is_complete(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key together")
        return self


class TimeServiceConfig(ConfigSection):
    """The administrator's time service for gateways: NTP over TLS."""

    listen: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}:\d{1,5}$")] | None = None
    """HOST:PORT to listen on; port 0 takes a free one. None: no time service, gateways trust their system's clock."""

    source: Literal["kernel", "vouched"] = "kernel"
    """Who says that this machine's time is right: kernel (its record of NTP or PTP; where it has none, gateways are
    told that the time is not synchronised, and ignore it), or vouched: the operator does."""


class DeliveriesConfig(ConfigSection):
    """Where gateways deliver values that profiles send to the market participant: HTTPS with mutual TLS."""

    inbox: Annotated[str, Field(pattern=r"^https://[^/\s]+:\d{1,5}$")] | None = None
    """Role emp: https://HOST:PORT of the market participant's inbox; port 0 takes a free one. None: no deliveries."""

    relay: Annotated[str, Field(pattern=r"^https://[^/\s]+:\d{1,5}$")] | None = None
    """Role gwa: https://HOST:PORT where the administrator takes pseudonymous deliveries and passes them on. None: there
    are none."""


class DeclaredToken(ConfigSection):
    """An enrolment token that somebody else has made: a Secret of a cluster, for example."""

    file: Path
    """File that holds the token and nothing else: 32 random characters at least. Read at the start."""

    uses: Annotated[int, Field(ge=1, le=1_000_000)]
    """How many gateways may enrol with it, counted from when it was seen first; a changed number changes nothing."""

    area: AreaName | None = None
    """Area that it admits to. None: any."""

    days: Annotated[int, Field(ge=1, le=3_650)] = 365
    """Days that it is good for, from when it was seen first."""

    label: Annotated[str, Field(max_length=80)] = "declared"
    """A note for `stromkreis pki tokens`."""


class CoordinatorConfig(ConfigSection):
    """Section `[coordinator]`."""

    role: Role = Role.ALL
    """all, or one of rings, gwa and emp for a process of its own; the three then meet in the same database, and share
    the files that docs/howto/operations.md names. Start gwa first: it makes the SM-PKI."""

    listen: ZmqEndpoint = "tcp://127.0.0.1:7300"
    """ZeroMQ endpoint (CURVE) for gateways: epochs, round ledger, relay. Port 0 takes a free one."""

    public_endpoint: ZmqEndpoint | None = None
    """The endpoint that gateways connect to, if it differs from `listen` (NAT, container)."""

    endpoints: dict[AreaName, ZmqEndpoint] = {}  # noqa: RUF012 - pydantic copies it
    """Role gwa: by area, the endpoint of its ring service, where several share the areas of one database. An area that
    is not here has public_endpoint."""

    standby: bool = False
    """Whether to stand by while another process is the ring service of one of the areas, and to take over when that is
    gone: a killed one within 5 s, one that hangs within 15 s, on SQLite a killed one at once. false: end with an error
    after 17 s."""

    ring_curve_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Role gwa: the ring service's CURVE public key, 64 hexadecimal digits, which gateways get at enrolment. None: that
    in data_dir/curve.json."""

    ring_list_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Role gwa: the ring service's Ed25519 public key, 64 hexadecimal digits, which gateways pin at enrolment: it signs
    each epoch's list of members. None: that in data_dir/list.json."""

    web: WebConfig = WebConfig()

    time: TimeServiceConfig = TimeServiceConfig()

    deliveries: DeliveriesConfig = DeliveriesConfig()

    oidc: OidcConfig | None = None

    data_dir: Path = Path("var/coordinator")
    """Directory of everything durable: database and, unless said otherwise, the PKI. Back this up."""

    database: str | None = None
    """SQLAlchemy URL. None: SQLite in data_dir (good to some 10,000 gateways); postgresql+psycopg://USER@HOST/NAME
    beyond."""

    irrevocable: Path | None = None
    """File of revocations and spent enrolment tokens that outlives the database: put it where a restore of the database
    does not reach, best on another disk. None: data_dir/irrevocable.jsonl. A restored coordinator without the newest
    one has revoked gateways active again."""

    log_dir: Path | None = None
    """Role gwa: directory of the enrolment log's own copy (enrolment-log.jsonl) and of its signing key (log.json). Put
    it where neither a restore of the database nor whoever administers that reaches. None: data_dir. Without the
    newest copy a restored coordinator shows gateways a shorter log than they saw, and they take part in no epoch."""

    keys_dir: Path | None = None
    """Directory of the ring service's keys (curve.json, list.json) and of the enrolment log's (log.json), which may be
    read-only: `stromkreis pki init` makes them there. None: data_dir, and log_dir. A coordinator that stands by on
    another machine needs the same keys."""

    pki_dir: Path | None = None
    """Directory of the SM-PKI (root, sub-CA, issued certificates). None: data_dir/pki."""

    quality_seal: Literal["required", "optional"] = "optional"
    """Whether a gateway must show its manufacturer's quality seal to be enrolled. required: a token alone admits
    nobody, and the manufacturer's revocation list must be there. optional: a seal that is shown must hold."""

    initial_profiles: Path | None = None
    """Role gwa: file with a profile set as JSON, with {gateway} and {number} as `stromkreis gwa profiles roll-out`
    takes them. The administrator signs it for each gateway that was never given a set, when that first asks; gateways
    contribute nothing to totals before they have one. Later changes: by roll-out, with a higher version. None: sets are
    rolled out by hand."""

    declared_tokens: Annotated[tuple[DeclaredToken, ...], Field(max_length=1_000)] = ()
    """Enrolment tokens that are known from the start, each in a file. One that is taken out of here stays good until
    it is revoked (`stromkreis pki revoke-token`)."""

    areas: Annotated[tuple[AreaName, ...], Field(min_length=1)] = ("default",)
    """Grid areas (feeders, transformers) whose totals are wanted; gateways enrol into one of them by token. Finer areas
    give the operator more detail and need more gateways: one with fewer than its ring's n_min is refused, never
    merged."""

    recipients: Annotated[tuple[TotalsRecipient, ...], Field(min_length=1, max_length=64)] = (
        TotalsRecipient(participant="grid-operator"),
    )
    """Market participants that get totals; a change counts from each area's next epoch on. Each further one of a total
    leaves out, for all, the households whose profiles do not name it: the crowd becomes smaller."""

    epoch: EpochConfig = EpochConfig()

    commitments_keep_days: Annotated[int, Field(ge=1, le=1_500)] = 100
    """Days of metering time for which the commitments of verified rounds are kept, by which bills are verified; some
    6 KB a day for each gateway. Raising it above the gateways' own `billing.keep_days` is of no use."""

    io_threads: Annotated[int, Field(ge=1, le=16)] = 1
    """Threads for TCP and CURVE. One carries some ten thousand gateways; more use more cores."""

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database if self.database is not None else f"sqlite:///{self.data_dir / 'coordinator.sqlite'}"

    @property
    def irrevocable_path(self) -> Path:
        """The file of what a restore of the database must not undo."""
        return self.irrevocable if self.irrevocable is not None else self.data_dir / "irrevocable.jsonl"

    @property
    def log_path(self) -> Path:
        """The directory of the enrolment log's own copy and key."""
        return self.log_dir if self.log_dir is not None else self.data_dir

    @property
    def keys_path(self) -> Path:
        """The directory of the ring service's keys."""
        return self.keys_dir if self.keys_dir is not None else self.data_dir

    @property
    def log_key_path(self) -> Path:
        """The directory of the enrolment log's signing key."""
        return self.keys_dir if self.keys_dir is not None else self.log_path

    @property
    def pki_path(self) -> Path:
        """The directory of the PKI in force."""
        return self.pki_dir if self.pki_dir is not None else self.data_dir / "pki"

    @model_validator(mode="after")
    def _gateways_find_the_rings(self) -> Self:
        if self.role is Role.GWA and self.public_endpoint is None and self.listen.endswith(":0"):
            raise ValueError(
                "public_endpoint, because role gwa sends gateways to the ring service, and listen has port 0"
            )
        return self

    def schema_of(self, area: str) -> Schema:
        """The aggregate schema of an area, with whom each total is for."""
        return with_recipients(self.epoch.aggregate_schema, self.recipients, area)

    @model_validator(mode="after")
    def _totals_are_for_somebody(self) -> Self:
        check_distinct(self.recipients)
        if self.role.does(Role.RINGS):
            check_recipients(self.epoch.aggregate_schema, self.recipients, self.areas)
        return self

    @model_validator(mode="after")
    def _areas_differ(self) -> Self:
        if len(set(self.areas)) != len(self.areas):
            raise ValueError("areas of different names")
        return self
