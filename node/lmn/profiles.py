"""
What a gateway must know of a meter to read it: which driver, over which link, with which keys, how often.

The profile comes from the gateway administrator (TR-03109-1: Zählerprofil); this is the part the LMN needs.  A meter
behind another (a gas meter on a P1 port) and several meters on one bus are profiles with the same link.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from node.lmn.links import with_defaults
from protocol.dcnet.setup.ranges import FUSE_A, FUSE_A_MAX, FUSE_A_MIN
from protocol.metering.obis import Obis

ANY_METER = "*"
_IN_QUERY = (
    "registers",
    "interval_s",
    "medium",
    "time_zone",
    "constant_imp_per_kwh",
    "wake_up",
    "mode_e",
    "layouts",
    "map",
    "pages",
    "fuse_a",
    "keep_days",
    "keep_telegrams_s",
)
SILENT_INTERVALS = 3  # telegrams that may be lost before a pushing bus counts as silent


def _obis(value: Any) -> Obis:
    return value if isinstance(value, Obis) else Obis.parse(str(value))


def _names(value: Any) -> Any:
    return tuple(value.split(",")) if isinstance(value, str) else value


class MeterProfile(BaseModel):
    """
    One meter.

    `device` is the id under which its readings go on (DIN 43849 form); `meter_id` what the meter calls itself where
    that differs, `*` for the only meter on its link, whoever it is.  `address` is what the bus wants to hear: the
    device address of IEC 62056-21, an M-Bus address (a primary one, 0 to 250, or a secondary one as
    `node.lmn.mbus.procedures.parse_address` has it), `[hdlc:|wrapper:]CLIENT/LOGICAL[/PHYSICAL]` of DLMS (where it
    pushes `hdlc:`, `wrapper:` or `mbus:` alone), the server id of one of several SML meters, `MODULE[:MODE][/GATEWAY]`
    of wireless M-Bus: the radio module, the mode that it is set to, and the 14 characters of the gateway's own address
    where meters that listen after they have spoken shall be asked, once a quarter hour; `[rtu:|tcp:]UNIT` of Modbus.
    `keys` are hexadecimal:
    `encryption`, for DLMS and encrypted P1 `authentication`, for DLMS `password` and the gateway's `system_title`, for
    `lks1` (SML in TLS on the wired LMN) `certificate`, `private_key` and `meter_certificate` in DER.
    `registers` empty means all; named ones are kept, the rest is not delivered.  `push`: the meter sends unasked.
    `interval_s`: how often it then does; after `SILENT_INTERVALS` of them the bus counts as silent, so a value too
    small makes alarms of lost telegrams and one too large hides a dead meter.  `medium` is OBIS group A for meters
    that leave it out, `time_zone` that of stamps without an offset.  `wake_up`: an IEC 62056-21 meter on a battery.
    `mode_e`: DLMS behind the hand-over of IEC 62056-21 at an optical head.
    `layouts` (in a URL with commas between them) say what the lists of a DLMS meter mean that names nothing: shipped
    ones by name, own ones by file (docs/reference/lmn.md); for wireless meters tables of makers' formats.  `map` says
    the same of a Modbus meter's registers: `sunspec` for one that describes itself, a shipped table by name, an own one
    by file.
    `keep_days` and `keep_telegrams_s`: how long the metering log keeps its values of registration times and all others,
    where that is not as long as the node's configuration says.
    `fuse_a`: the fuse of the connection that it is behind, in ampere: readings over what that carries are held back.
    `pages` of an M-Bus meter that has several: what selects each of those to be read (`default`, B1, 50A0), in order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    device: str = Field(min_length=1, max_length=80)
    protocol: str
    link: str
    meter_id: str = ""
    address: str = ""
    keys: dict[str, SecretStr] = Field(default_factory=dict)
    registers: tuple[Annotated[Obis, BeforeValidator(_obis)], ...] = ()
    push: bool = False
    interval_s: float = Field(default=10.0, gt=0)
    medium: int = Field(default=1, ge=0, le=15)
    time_zone: str | None = None
    constant_imp_per_kwh: int | None = Field(default=None, gt=0)
    wake_up: bool = False
    mode_e: bool = False
    map: str = "sunspec"
    layouts: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    pages: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    fuse_a: int = Field(default=FUSE_A, ge=FUSE_A_MIN, le=FUSE_A_MAX)
    keep_days: int | None = Field(default=None, ge=1, le=3_660)
    keep_telegrams_s: int | None = Field(default=None, ge=900, le=172_800)

    @field_validator("link")
    @classmethod
    def _link_can_be_opened(cls, link: str, info: ValidationInfo) -> str:
        return with_defaults(link, info.data.get("protocol", ""))

    @field_validator("keys")
    @classmethod
    def _keys_are_hexadecimal(cls, keys: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, key in keys.items():
            try:
                bytes.fromhex(key.get_secret_value())
            except ValueError:
                raise ValueError(f"key {name!r} is not hexadecimal") from None
        return keys

    @field_validator("time_zone")
    @classmethod
    def _zone_exists(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                ZoneInfo(name)
            except (KeyError, OSError, ValueError):
                raise ValueError(f"no time zone {name!r} (expected a name such as Europe/Berlin)") from None
        return name

    @property
    def name_on_bus(self) -> str:
        """What the meter calls itself, where a driver must know."""
        return self.device if self.meter_id in {"", ANY_METER} else self.meter_id

    @property
    def silence_s(self) -> float:
        """How long a meter that pushes may say nothing."""
        return SILENT_INTERVALS * self.interval_s

    def key(self, name: str) -> bytes | None:
        """A key's octets, or None if the profile has none of that name."""
        return bytes.fromhex(self.keys[name].get_secret_value()) if name in self.keys else None

    def zone(self) -> ZoneInfo | None:
        """The time zone of stamps without an offset."""
        return None if self.time_zone is None else ZoneInfo(self.time_zone)


def profile_of_url(url: str, device: str, keys: Mapping[str, Mapping[str, SecretStr]]) -> MeterProfile:
    """
    A meter's profile from a URL such as `sml+tcp://127.0.0.1:20000?push=1`, its readings under the name `device`.

    `push`, `id`, `address` and the other fields of the profile are taken out of the query, the rest is the link's; the
    keys are those of the id.  Raises ValueError for a meter that cannot be, without repeating a key.
    """
    protocol, plus, link = url.partition("+")
    if not plus:
        raise ValueError("a meter URL has the form PROTOCOL+LINK, found no + in it")
    base = link.partition("?")[0]
    query = dict(parse_qsl(urlsplit(link).query))
    push = query.pop("push", "0") == "1"
    meter_id, address = query.pop("id", ANY_METER), query.pop("address", "")
    more: dict[str, Any] = {name: query.pop(name) for name in _IN_QUERY if name in query}
    if "registers" in more:
        more["registers"] = tuple(more["registers"].split(","))
    rest = "&".join(f"{name}={value}" for name, value in query.items())
    try:
        return MeterProfile(
            device=device, protocol=protocol, link=f"{base}?{rest}" if rest else base, meter_id=meter_id,
            address=address, keys=dict(keys.get(meter_id, {})), push=push, **more,
        )  # fmt: skip
    except ValidationError as error:
        described = "; ".join(_described(detail["loc"], detail["msg"]) for detail in error.errors(include_input=False))
        raise ValueError(described) from None


def _described(where: tuple[int | str, ...], what: str) -> str:
    text = what.removeprefix("Value error, ")
    return f"{where[0]}: {text}" if where and where[0] in _IN_QUERY else text
