"""The configuration of the gateways that a node process hosts: one by one, or alike by count and pattern."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from node.cls_config import ClsConfig
from node.config_section import ConfigSection
from node.han_config import HanConfig
from node.mdns_config import MdnsConfig


def _meter_url(text: str) -> str:
    parts = urlsplit(text)
    if not parts.scheme or not (parts.netloc or parts.path):
        raise ValueError("a meter URL of the form PROTOCOL+LINK://..., for example sml+tcp://127.0.0.1:20000")
    return text


MeterUrl = Annotated[str, AfterValidator(_meter_url)]
GatewayId = Annotated[str, Field(pattern=r"^[A-Z0-9]{14}$")]
AreaName = Annotated[str, Field(pattern=r"^[^\s](.{0,62}[^\s])?$")]
_ID_LENGTH = 14


class GatewayConfig(ConfigSection):
    """One smart meter gateway."""

    id: GatewayId
    """Gateway id, as in its certificate: the 14 characters of DIN 43863-5, for example ESTK0000000001."""

    meters: Annotated[tuple[MeterUrl, ...], Field(min_length=1)]
    """URLs of its meters, for example sml+tcp://127.0.0.1:20000 or
    wmbus+radio:///dev/ttyUSB0?baud=57600&id=1STK0100000001. In the query: push=1 for a meter that speaks unasked,
    id=... what the meter calls itself, address=... what its bus wants to hear, registers=1-0:1.8.0,1-0:2.8.0 what
    to keep of it, interval_s=... how often a meter that speaks unasked does, time_zone=Europe/Berlin that of stamps
    without an offset, medium=7 the OBIS group A of meters that leave it out. Addresses: M-Bus 0 to 250, or a
    secondary one such as 12345678, 1ISK0112345678, or 12345678+00000007 with its fabrication number; DLMS
    CLIENT/LOGICAL/PHYSICAL, with push=1 mbus: for the M-Bus of Austrian meters; wireless M-Bus the receiver
    imst, amber, amber-rssi, cul, rtl-433, rtl-wmbus or raw, imst:ct with its radio mode (s, t, c or ct), and imst/ID
    to ask, under the 14 characters ID, meters that listen; rtl://rtl_433 or rtl://rtl_wmbus in place of radio:// starts
    a program that reads an RTL-SDR stick.
    fuse_a=63 the fuse of its connection in ampere (three phases), which bounds what a reading can be.
    keep_days=30 and keep_telegrams_s=7200 how long the metering log keeps what this meter measured.
    pages=default,B1 M-Bus meters whose pages a command selects. wake_up=1 rouses IEC 62056-21 meters that sleep on a
    battery. A serial line without baud= and frame= has those that its protocol starts with. The contribution is the
    sum over its meters."""

    keys: dict[str, dict[str, SecretStr]] = Field(default={})
    """Keys in hexadecimal, by the id= of the meter's URL and by purpose: encryption, authentication, password,
    system_title; for lks1 certificate, private_key and meter_certificate in DER. Nothing but these tables holds
    them; keep the file from other eyes."""

    tariff: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Name of the customer's tariff; None: the node's (`node.billing.tariff`)."""

    area: AreaName | None = None
    """Grid area that it stands in; None: the node's."""

    token: SecretStr | None = None
    """Enrolment token of this gateway; None: the node's."""

    han: HanConfig = HanConfig()

    cls: ClsConfig = ClsConfig()

    mdns: MdnsConfig = MdnsConfig()

    @model_validator(mode="after")
    def _accounts_meters_exist(self) -> Self:
        places = {place for account in self.han.accounts for place in account.meters}
        if places and max(places) >= len(self.meters):
            raise ValueError(f"han.accounts: meters up to {len(self.meters) - 1}, these are up to {max(places)}")
        return self


class FleetConfig(ConfigSection):
    """Gateways alike: number i of 0..count-1 is PREFIX + i in digits and reads `meter` at port first_port + i."""

    count: Annotated[int, Field(ge=1, le=100_000)]
    """Gateways to make. Each costs some 150 KB of memory, six open files and one TCP connection to its meter."""

    ordinal: Annotated[int, Field(ge=0)] | Literal["hostname"] | None = None
    """Number of this process among others alike. {ordinal}, or {ordinal:04} with four digits, stands for it in every
    text of [node]: ids, meter URLs, areas, ports, directories. hostname: what the host's name ends in, as that of a
    StatefulSet's pod does. None: this process is the only one."""

    prefix: Annotated[str, Field(pattern=r"^[A-Z0-9]{1,13}$")] = "ESTK00"
    """First characters of the ids, which digits fill up to 14; must differ between the processes that report to one
    coordinator. With an ordinal the default is ESTK{ordinal:04}."""

    meter: Annotated[str, Field(min_length=1)] = "sml+tcp://127.0.0.1:{port}"
    """Meter URL with {port} for the port and {id} for the gateway's id."""

    first_port: Annotated[int, Field(ge=1, le=65_535)] = 20_000
    """Port of the first meter."""

    @model_validator(mode="after")
    def _ports_and_ids_exist(self) -> Self:
        if "{port}" in self.meter and self.first_port + self.count > 65_536:
            raise ValueError(f"first_port + count at most 65536, these are {self.first_port + self.count}")
        digits = len(str(self.count - 1))
        if len(self.prefix) + digits > _ID_LENGTH:
            raise ValueError(
                f"a prefix of at most {_ID_LENGTH - digits} characters, because {self.count} gateways take the"
                f" {digits} others of an id; {self.prefix} has {len(self.prefix)}"
            )
        return self

    def gateways(self) -> tuple[GatewayConfig, ...]:
        """The gateways of the pattern, in order."""
        made = []
        for i in range(self.count):
            name = f"{self.prefix}{i:0{_ID_LENGTH - len(self.prefix)}d}"
            url = self.meter.replace("{port}", str(self.first_port + i)).replace("{id}", name)
            made.append(GatewayConfig(id=name, meters=(url,)))
        return tuple(made)
