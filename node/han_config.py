"""The configuration of a gateway's interface to the home: where it listens, and who may log in until profiles come."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from node.config_section import ConfigSection


class HanAccountConfig(ConfigSection):
    """Who may log in at home before the administrator's first profile set is in force (docs/howto/consumer.md)."""

    user: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    """Name to log in with."""

    role: Literal["consumer", "technician"] = "consumer"
    """consumer: sees the values of its meters. technician: state and system log of the gateway, never a value."""

    ha1_sha256: SecretStr | None = None
    """What verifies the password, from `stromkreis han password`; the password itself stands nowhere."""

    ha1_md5: SecretStr | None = None
    """The same for clients that know MD5 only."""

    certificate: Path | None = None
    """PEM file of the TLS certificate that it may show in place of a password."""

    meters: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """A consumer's meters, as places in the gateway's `meters` from 0. Empty: all, where it is the only consumer."""

    facades: tuple[Literal["ppc", "theben", "emh"], ...] = ()
    """Interfaces of other gateways that a consumer's programs may use: PPC, Theben CONEXA, EMH CASA. Empty: none."""

    @model_validator(mode="after")
    def _facades_are_for_consumers(self) -> Self:
        if self.role != "consumer" and self.facades:
            raise ValueError("facades: for consumers only")
        return self


class HanConfig(ConfigSection):
    """The gateway's interface to the home: consumer's page, HAN API (docs/howto/consumer.md)."""

    listen: Annotated[str, Field(pattern=r"^https://(\[[0-9a-fA-F:.%]+\]|[A-Za-z0-9.-]+):\d{1,5}$")] | None = None
    """Where it is served, for example https://192.168.1.200:443; port 0 takes a free one. None: nowhere."""

    accounts: tuple[HanAccountConfig, ...] = ()

    @model_validator(mode="after")
    def _meters_are_told_apart(self) -> Self:
        users = [each.user for each in self.accounts]
        if len(set(users)) != len(users):
            raise ValueError("accounts of different users")
        consumers = [each for each in self.accounts if each.role == "consumer"]
        if len(consumers) > 1 and not all(each.meters for each in consumers):
            raise ValueError("meters for each of several consumers: none may see another's")
        return self
