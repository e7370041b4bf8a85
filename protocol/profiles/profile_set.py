"""
The profile set of one gateway: everything that the administrator sets, as one versioned document.

It takes effect whole or not at all: each profile must be valid and every reference between them must lead somewhere.
The administrator signs the canonical JSON (CMS SignedData, protocol.cms); versions only go up, so that an old set
that was signed once cannot be played again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, Field, model_validator

from protocol.profiles.base import CertificateText, Identifier, Profile, canonical_json, read_json
from protocol.profiles.communication import HanProfile, ProxyProfile, WanProfile
from protocol.profiles.meter import MeterProfile
from protocol.profiles.processing import ProcessingProfile, registers_of

PROFILE_SET_SIZE_MAX = 1 << 20


class ProfileSet(Profile):
    """
    All profiles of the gateway `gateway`.

    `certificates` are those that the WAN profiles name by fingerprint, for whoever must encrypt to them.
    """

    gateway: Identifier
    version: Annotated[int, Field(ge=1, le=2**53)]
    issued_at: AwareDatetime
    meters: Annotated[tuple[MeterProfile, ...], Field(max_length=64)] = ()
    processing: Annotated[tuple[ProcessingProfile, ...], Field(max_length=256)] = ()
    wan: Annotated[tuple[WanProfile, ...], Field(max_length=64)] = ()
    han: Annotated[tuple[HanProfile, ...], Field(max_length=64)] = ()
    proxy: Annotated[tuple[ProxyProfile, ...], Field(max_length=64)] = ()
    certificates: Annotated[tuple[CertificateText, ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for what in ("meters", "processing", "wan", "han", "proxy"):
            _once((each.id for each in getattr(self, what)), what)
        meters = {each.id: each for each in self.meters}
        wan = {each.id for each in self.wan}
        for each in self.processing:
            self._check_processing(each, meters, wan)
        systems = {each.user for each in self.han if each.role == "cls"}
        for proxy in self.proxy:
            if proxy.cls not in systems:
                raise ValueError(f"proxy {proxy.id}: no HAN profile of a controllable system {proxy.cls}")
        points = {each.metering_point for each in self.processing}
        for han in self.han:
            if missing := sorted(set(han.metering_points) - points):
                raise ValueError(f"han {han.id}: no processing profile for {', '.join(missing)}")
        return self

    @staticmethod
    def _check_processing(profile: ProcessingProfile, meters: dict[str, MeterProfile], wan: set[str]) -> None:
        for assigned in profile.meters:
            meter = meters.get(assigned.meter)
            if meter is None:
                raise ValueError(f"processing {profile.id}: no meter profile {assigned.meter}")
            if unknown := [each for each in registers_of(profile) if each not in meter.registers]:
                raise ValueError(f"processing {profile.id}: meter {meter.id} has no register {', '.join(unknown)}")
            if profile.registration_period_s % meter.registration_period_s:
                raise ValueError(
                    f"processing {profile.id}: {profile.registration_period_s} s is no multiple of the "
                    f"{meter.registration_period_s} s that meter {meter.id} is read in"
                )
        if missing := sorted({each.communication for each in profile.recipients} - wan):
            raise ValueError(f"processing {profile.id}: no WAN profile {', '.join(missing)}")

    def to_bytes(self) -> bytes:
        """The canonical JSON, which is what is signed."""
        return canonical_json(self)

    @classmethod
    def from_bytes(cls, document: bytes) -> ProfileSet:
        """
        Read a set.

        Raises RemoteProtocolError `bad_profile` where a field or a reference does not fit, named; nothing of the set
        may be used then.
        """
        return read_json(cls, document, PROFILE_SET_SIZE_MAX)


def json_schema() -> dict[str, Any]:
    """The JSON schema of a profile set, for whoever writes one."""
    return ProfileSet.model_json_schema()


def _once(ids: Iterable[str], what: str) -> None:
    known = list(ids)
    if len(set(known)) != len(known):
        raise ValueError(f"{what}: an id appears twice")
