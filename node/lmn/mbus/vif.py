"""
What a value is: the value information block (VIF and VIFE bytes) of EN 13757-3 clause 6.4 and annex C.

The first byte names quantity, unit and power of ten, or points to one of two extension tables (FD, FB), to a text
in the telegram (7C) or to the manufacturer (7F).  Further bytes modify it: some are a factor, some change the
meaning (per hour, only backward, phase L1), some say that the record is in error.  A modifier that we do not know
must never be overlooked, since the number then means something else; so all are kept by name, and only a block
whose modifiers are all understood may get an OBIS code.

The tables are data: a range of codes, the quantity, the power of ten of the first code and the unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final

from protocol.metering.units import unit_symbol

VIFE_COUNT_MAX: Final = 10
TEXT_SIZE_MAX: Final = 64


class Kind(Enum):
    """How the octets of a value are to be read where the data field alone does not say."""

    NUMBER = "number"
    BITS = "bits"  # flags: never negative
    IDENTITY = "identity"  # numbers that name something: never negative
    DATE = "date"
    DATETIME = "datetime"
    OPAQUE = "opaque"  # containers: octets
    FOREIGN = "foreign"  # under a manufacturer's VIF: numbers where the data field says so, otherwise octets


class Profile(Enum):
    """Compact profiles (EN 13757-3 annex F), marked by an orthogonal VIFE."""

    INVERSE = 0x13
    REGISTERS = 0x1E
    PLAIN = 0x1F


@dataclass(frozen=True, slots=True)
class ValueInformation:
    """
    A decoded VIB.  `unit` is a DLMS unit code, `unit_text` says it in words where DLMS has no code for it.

    `modifiers` are the names of the VIFEs that change the meaning, in order; `record_error` is set where the meter
    reports an error instead of a value; `understood` is False where a part belongs to the manufacturer or is unknown.
    """

    quantity: str
    scaler: int = 0
    unit: int | None = None
    unit_text: str | None = None
    kind: Kind = Kind.NUMBER
    modifiers: tuple[str, ...] = ()
    record_error: str | None = None
    profile: Profile | None = None
    understood: bool = True
    standard_conform: bool = False


_Entry = tuple[str, int, int | None, str | None, Kind]
_Unit = int | str | None
_Row = tuple[int, int, str, int, _Unit] | tuple[int, int, str, int, _Unit, Kind]
_N, _B, _I = Kind.NUMBER, Kind.BITS, Kind.IDENTITY


def _table(
    *rows: tuple[int, int, str, int, int | str | None] | tuple[int, int, str, int, int | str | None, Kind],
) -> dict[int, _Entry]:
    """Rows: first code, how many, quantity, power of ten of the first, DLMS unit code or text, kind."""
    out: dict[int, _Entry] = {}
    for first, count, quantity, scaler, unit, *kind in rows:
        code = unit if isinstance(unit, int) else None
        text = unit if isinstance(unit, str) else None
        for step in range(count):
            out[first + step] = (quantity, scaler + step, code, text, kind[0] if kind else _N)
    return out


def _times(first: int, quantity: str) -> list[tuple[int, int, str, int, int]]:
    return [(first + step, 1, quantity, 0, unit) for step, unit in enumerate((7, 6, 5, 4))]  # s, min, h, d


# EN 13757-3 table 10, primary VIFs.
PRIMARY: Final = _table(
    (0x00, 8, "energy", -3, 30), (0x08, 8, "energy", 0, 25), (0x10, 8, "volume", -6, 13), (0x18, 8, "mass", -3, 20),
    *_times(0x20, "on time"), *_times(0x24, "operating time"),
    (0x28, 8, "power", -3, 27), (0x30, 8, "power", 0, 26), (0x38, 8, "volume flow", -6, 15),
    (0x40, 8, "volume flow", -7, "m³/min"), (0x48, 8, "volume flow", -9, "m³/s"), (0x50, 8, "mass flow", -3, "kg/h"),
    (0x58, 4, "flow temperature", -3, 9), (0x5C, 4, "return temperature", -3, 9),
    (0x60, 4, "temperature difference", -3, 52), (0x64, 4, "external temperature", -3, 9),
    (0x68, 4, "pressure", -3, 24), (0x6C, 1, "date", 0, None, Kind.DATE),
    (0x6D, 1, "date and time", 0, None, Kind.DATETIME),
    (0x6E, 1, "heat cost allocation", 0, 255), *_times(0x70, "averaging duration"), *_times(0x74, "actuality duration"),
    (0x78, 1, "fabrication number", 0, None, _I), (0x79, 1, "enhanced identification", 0, None, _I),
    (0x7A, 1, "address", 0, None, _I),
)  # fmt: skip

# EN 13757-3 table 14, first extension (FD).
EXTENSION_FD: Final = _table(
    (0x00, 4, "credit", -3, 10), (0x04, 4, "debit", -3, 10), (0x08, 1, "access number", 0, None, _I),
    (0x09, 1, "device type", 0, None, _I), (0x0A, 1, "manufacturer", 0, None, _I),
    (0x0B, 1, "parameter set", 0, None, _I), (0x0C, 1, "model version", 0, None, _I),
    (0x0D, 1, "hardware version", 0, None, _I), (0x0E, 1, "firmware version", 0, None, _I),
    (0x0F, 1, "software version", 0, None, _I), (0x10, 1, "customer location", 0, None, _I),
    (0x11, 1, "customer", 0, None, _I), (0x12, 1, "access code user", 0, None, _I),
    (0x13, 1, "access code operator", 0, None, _I), (0x14, 1, "access code system operator", 0, None, _I),
    (0x15, 1, "access code developer", 0, None, _I), (0x16, 1, "password", 0, None, _I),
    (0x17, 1, "error flags", 0, None, _B), (0x18, 1, "error mask", 0, None, _B),
    (0x19, 1, "security key", 0, None, Kind.OPAQUE), (0x1A, 1, "digital output", 0, None, _B),
    (0x1B, 1, "digital input", 0, None, _B), (0x1C, 1, "baud rate", 0, "baud"),
    (0x1D, 1, "response delay", 0, "bit times"),
    (0x1E, 1, "retry", 0, 255), (0x1F, 1, "remote control", 0, None, _B), (0x20, 1, "first storage number", 0, 255),
    (0x21, 1, "last storage number", 0, 255), (0x22, 1, "storage block size", 0, 255),
    (0x23, 1, "tariff and subunit descriptor", 0, None, _B), *_times(0x24, "storage interval"),
    (0x28, 1, "storage interval", 0, 2), (0x29, 1, "storage interval", 0, 1),
    (0x2A, 1, "operator data", 0, None, Kind.OPAQUE),
    (0x2B, 1, "time point second", 0, 7), *_times(0x2C, "duration since last readout"),
    (0x30, 1, "start of tariff", 0, None, Kind.DATETIME), (0x31, 1, "duration of tariff", 0, 6),
    (0x32, 1, "duration of tariff", 0, 5), (0x33, 1, "duration of tariff", 0, 4), *_times(0x34, "period of tariff"),
    (0x38, 1, "period of tariff", 0, 2), (0x39, 1, "period of tariff", 0, 1), (0x3A, 1, "dimensionless", 0, 255),
    (0x3B, 1, "wireless M-Bus container", 0, None, Kind.OPAQUE), *_times(0x3C, "period of transmissions"),
    (0x40, 16, "voltage", -9, 35), (0x50, 16, "current", -12, 33), (0x60, 1, "reset counter", 0, 255),
    (0x61, 1, "cumulation counter", 0, 255), (0x62, 1, "control signal", 0, None, _B), (0x63, 1, "day of week", 0, 255),
    (0x64, 1, "week number", 0, 255), (0x65, 1, "time point of day change", 0, None, Kind.DATETIME),
    (0x66, 1, "state of parameter activation", 0, None, _B), (0x67, 1, "special supplier information", 0, None, _I),
    (0x68, 1, "duration since last cumulation", 0, 5), (0x69, 1, "duration since last cumulation", 0, 4),
    (0x6A, 1, "duration since last cumulation", 0, 2), (0x6B, 1, "duration since last cumulation", 0, 1),
    (0x6C, 1, "operating time of battery", 0, 5), (0x6D, 1, "operating time of battery", 0, 4),
    (0x6E, 1, "operating time of battery", 0, 2), (0x6F, 1, "operating time of battery", 0, 1),
    (0x70, 1, "date of battery change", 0, None, Kind.DATETIME), (0x71, 1, "radio level", 0, 70),
    (0x72, 1, "daylight saving", 0, None, _B), (0x73, 1, "listening window", 0, None, _B),
    (0x74, 1, "remaining battery life", 0, 4), (0x75, 1, "meter stops", 0, 255),
    (0x76, 1, "manufacturer protocol container", 0, None, Kind.OPAQUE),
)  # fmt: skip

# EN 13757-3:2018, second level of the extension FD (FD FD).
EXTENSION_FD_FD: Final = _table(
    (0x00, 1, "selected application", 0, None, _I), (0x02, 1, "remaining battery life", 0, 2),
    (0x03, 1, "remaining battery life", 0, 1),
)  # fmt: skip

# EN 13757-3 table 12, second extension (FB).
EXTENSION_FB: Final = _table(
    (0x00, 2, "energy", 5, 30), (0x02, 2, "reactive energy", 3, 32), (0x04, 2, "apparent energy", 3, 31),
    (0x08, 2, "energy", 8, 25), (0x0C, 4, "energy", 5, "cal"), (0x10, 2, "volume", 2, 13),
    (0x14, 4, "reactive power", 0, 29), (0x18, 2, "mass", 5, 20), (0x1A, 2, "relative humidity", -1, 56),
    (0x20, 1, "volume", 0, "ft³"), (0x21, 1, "volume", -1, "ft³"), (0x22, 1, "volume", -1, "US gal"),
    (0x23, 1, "volume", 0, "US gal"), (0x24, 1, "volume flow", -3, "US gal/min"),
    (0x25, 1, "volume flow", 0, "US gal/min"),
    (0x26, 1, "volume flow", 0, "US gal/h"), (0x28, 2, "power", 5, 27), (0x2A, 1, "phase voltage to voltage", -1, 8),
    (0x2B, 1, "phase voltage to current", -1, 8), (0x2C, 4, "frequency", -3, 44), (0x30, 2, "power", 8, 26),
    (0x34, 4, "apparent power", 0, 28), (0x58, 4, "flow temperature", -3, "°F"),
    (0x5C, 4, "return temperature", -3, "°F"),
    (0x60, 4, "temperature difference", -3, "°F"), (0x64, 4, "external temperature", -3, "°F"),
    *((0x68 + step, 1, f"rating factor {name}", 0, "2^-12") for step, name in ((0, "K"), (2, "Kc"), (3, "Kcr"))),
    *((0x6C + step, 1, f"rating factor {name}", 0, "2^-12") for step, name in enumerate(("Kch", "Kt", "KD"))),
    (0x69, 1, "rating factor Kq", 0, None),
    (0x70, 4, "cold or warm temperature limit", -3, "°F"), (0x74, 4, "cold or warm temperature limit", -3, 9),
    (0x78, 8, "cumulative maximum of active power", -3, 27),
)  # fmt: skip

# EN 13757-3 table 15: record errors (meter to master).
RECORD_ERRORS: Final = {
    0x01: "too many DIFEs", 0x02: "storage number not implemented", 0x03: "unit number not implemented",
    0x04: "tariff number not implemented", 0x05: "function not implemented", 0x06: "data class not implemented",
    0x07: "data size not implemented", 0x0B: "too many VIFEs", 0x0C: "illegal VIF group", 0x0D: "illegal VIF exponent",
    0x0E: "VIF and DIF mismatch", 0x0F: "action not implemented", 0x15: "no data available", 0x16: "overflow",
    0x17: "underflow", 0x18: "data error", 0x1C: "premature end of record",
}  # fmt: skip

_PER: Final = ("s", "min", "h", "d", "week", "month", "year", "revolution")
_PER_MORE: Final = {
    0x28: "per pulse on input 0", 0x29: "per pulse on input 1", 0x2A: "per pulse on output 0",
    0x2B: "per pulse on output 1", 0x2C: "per l", 0x2D: "per m³", 0x2E: "per kg", 0x2F: "per K", 0x30: "per kWh",
    0x31: "per GJ", 0x32: "per kW", 0x33: "per (K·l)", 0x34: "per V", 0x35: "per A", 0x36: "times s",
    0x37: "times s/V", 0x38: "times s/A", 0x44: "times flow temperature / 100", 0x45: "times return temperature / 100",
}  # fmt: skip
# EN 13757-3 table 16, orthogonal VIFEs that leave the unit alone.
_MEANINGS: Final = {
    0x12: "averaged", 0x3A: "uncorrected", 0x3B: "forward", 0x3C: "backward", 0x3E: "base conditions",
    0x40: "lower limit", 0x48: "upper limit", 0x68: "during lower limit exceed", 0x6C: "during upper limit exceed",
    0x69: "leakage", 0x6D: "overflow", 0x7E: "future",
}  # fmt: skip
# The same table, VIFEs that count how often, whatever the unit of what is counted.
_COUNTS: Final = {0x41: "number of exceeds of lower limit", 0x49: "number of exceeds of upper limit"}
# The same table, VIFEs under which the number is not in the VIF's unit, and no text at hand says in which: a US gallon
# must not pass for a cubic metre.
_UNITLESS: Final = {0x14: "relative deviation", 0x3D: "non-metric", 0x3F: "OBIS declaration"}
_UNITLESS_EXTENDED: Final = frozenset({0x0D})
# EN 13757-3:2018 and its later editions, extension of the orthogonal VIFEs (FC).
_EXTENDED_MEANINGS: Final = {
    0x01: "L1", 0x02: "L2", 0x03: "L3", 0x04: "N", 0x05: "L1-L2", 0x06: "L2-L3", 0x07: "L3-L1", 0x08: "quadrant 1",
    0x09: "quadrant 2", 0x0A: "quadrant 3", 0x0B: "quadrant 4", 0x0C: "import minus export",
    0x0D: "alternate non-metric", 0x0E: "secondary sensor", 0x0F: "higher resolution", 0x10: "absolute",
    0x11: "data type C", 0x12: "data type D", 0x13: "end of", 0x14: "to meter", 0x15: "from meter",
    0x16: "liquid pressure", 0x17: "gas pressure", 0x18: "outdoors", 0x25: "L2-L1", 0x26: "L3-L2", 0x27: "L1-L3",
}  # fmt: skip


_END_DATE: Final = 0x13
_UNSIGNED: Final = frozenset({0x11, 0x12})  # types C and D have no sign


def _edge(code: int) -> str:
    return f"{'end' if code & 1 else 'begin'} of {'last' if code & 4 else 'first'}"


_DATES: Final = (
    {0x39: "start of"}
    | {code: f"{_edge(code)} lower limit exceed" for code in (0x42, 0x43, 0x46, 0x47)}
    | {code: f"{_edge(code)} upper limit exceed" for code in (0x4A, 0x4B, 0x4E, 0x4F)}
    | {code: _edge(code) for code in (0x6A, 0x6B, 0x6E, 0x6F)}
)
_TIME_UNITS: Final = (7, 6, 5, 4)


class _Builder:
    """Applies one VIFE after the other to what the VIF said."""

    def __init__(self, entry: _Entry, understood: bool) -> None:
        self.quantity, self.scaler, self.unit, self.unit_text, self.kind = entry
        self.understood = understood
        self.modifiers: list[str] = []
        self.record_error: str | None = None
        self.profile: Profile | None = None
        self.standard_conform = False

    def modify(self, code: int) -> None:
        match code:
            case 0x00:
                pass
            case 0x13 | 0x1E | 0x1F:
                self.profile = Profile(code)
            case 0x1D:
                self.standard_conform = True
            case code if code in RECORD_ERRORS:
                self.record_error = RECORD_ERRORS[code]
            case code if 0x20 <= code < 0x28:
                self._per(f"per {_PER[code - 0x20]}")
            case code if code in _PER_MORE:
                self._per(_PER_MORE[code])
            case code if code in _MEANINGS:
                self.modifiers.append(_MEANINGS[code])
            case code if code in _COUNTS:
                self._becomes(_COUNTS[code], Kind.BITS, 255)
            case code if code in _UNITLESS:
                self._becomes(_UNITLESS[code], self.kind, None)
            case code if code in _DATES:
                self._becomes(_DATES[code], Kind.DATETIME, None)
            case code if 0x50 <= code <= 0x5F:
                which = f"{'last' if code & 4 else 'first'} {'upper' if code & 8 else 'lower'} limit exceed"
                self._becomes(f"duration of {which}", Kind.NUMBER, _TIME_UNITS[code & 3])
            case code if 0x60 <= code <= 0x67:
                self._becomes(f"duration of {'last' if code & 4 else 'first'}", Kind.NUMBER, _TIME_UNITS[code & 3])
            case code if 0x70 <= code <= 0x77:
                self.scaler += (code & 7) - 6
            case code if 0x78 <= code <= 0x7B:
                self.modifiers.append(f"plus 10^{(code & 3) - 3}")
            case 0x7D:
                self.scaler += 3
            case _:
                self.unknown(f"VIFE {code:02x}")

    def extended(self, code: int) -> None:
        name = _EXTENDED_MEANINGS.get(code)
        if name is None:
            self.unknown(f"VIFE fc{code:02x}")
        elif code == _END_DATE:
            self._becomes(name, Kind.DATETIME, None)
        elif code in _UNITLESS_EXTENDED:
            self._becomes(name, self.kind, None)
        else:
            self.modifiers.append(name)
            if code in _UNSIGNED and self.kind is Kind.NUMBER:
                self.kind = Kind.BITS

    def unknown(self, name: str) -> None:
        self.modifiers.append(name)
        self.understood = False

    def _per(self, text: str) -> None:
        symbol = self.unit_text if self.unit is None else unit_symbol(self.unit)
        self.unit, self.unit_text = None, f"{symbol or '1'} {text}"
        self.modifiers.append(text)

    def _becomes(self, name: str, kind: Kind, unit: int | None) -> None:
        self.modifiers.append(name)
        self.kind, self.unit, self.unit_text, self.scaler = kind, unit, None, 0

    def build(self) -> ValueInformation:
        return ValueInformation(
            self.quantity, self.scaler, self.unit, self.unit_text, self.kind, tuple(self.modifiers),
            self.record_error, self.profile, self.understood, self.standard_conform,
        )  # fmt: skip


_MANUFACTURER: Final[_Entry] = ("manufacturer specific", 0, None, None, Kind.FOREIGN)


@lru_cache(maxsize=4096)
def value_information(vib: bytes) -> ValueInformation:
    """
    What a complete VIB means.

    `vib` must be whole (see `records.take_header`); unknown codes give the quantity "unknown", never an error.
    """
    code = vib[0] & 0x7F
    rest = vib[1:]
    extension = {0x7D: EXTENSION_FD, 0x7B: EXTENSION_FB}.get(code)
    if extension is not None and vib[0] & 0x80:
        if vib[:2] == b"\xfd\xfd":
            extension, rest = EXTENSION_FD_FD, rest[1:]
        entry, rest = extension.get(rest[0] & 0x7F), rest[1:]
    elif code == 0x7C:
        size = rest[0]
        text = rest[size:0:-1].decode("latin-1")
        entry, rest = ("plain text unit", 0, None, text, Kind.NUMBER), rest[1 + size :]
    elif code == 0x7F:
        builder = _Builder(_MANUFACTURER, understood=False)
        builder.modifiers.extend(f"{byte:02x}" for byte in rest)
        return builder.build()
    elif vib[0] == 0xEF:
        entry, rest = None, rest[1:]
    else:
        entry = PRIMARY.get(code)
    builder = _Builder(entry or ("unknown", 0, None, None, Kind.NUMBER), entry is not None)
    position = 0
    while position < len(rest):
        byte = rest[position] & 0x7F
        position += 1
        if byte == 0x7C and position < len(rest):
            builder.extended(rest[position] & 0x7F)
            position += 1
        elif byte == 0x7F:
            builder.unknown("manufacturer " + rest[position:].hex())
            break
        else:
            builder.modify(byte)
    return builder.build()
