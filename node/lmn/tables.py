"""
Tables that say what a meter's numbers mean, as TOML files: shipped ones inside a package, a user's own beside it.

Lists of DLMS without names and registers of Modbus are both described so.  A table that is none is refused with its
place and with what was expected there.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import Enum
from importlib import resources
from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from protocol.errors import LocalProtocolError
from protocol.metering.obis import Obis
from protocol.metering.units import unit_code

FILE_SIZE_MAX: Final = 1 << 18


def _obis(text: object) -> object:
    return Obis.parse(text) if isinstance(text, str) else text


def _unit(symbol: object) -> object:
    try:
        return unit_code(symbol) if isinstance(symbol, str) else symbol
    except KeyError:
        raise ValueError(f"no unit {symbol!r} (expected a DLMS symbol such as Wh, varh, W, V, A)") from None


ObisField = Annotated[Obis | None, BeforeValidator(_obis)]
UnitField = Annotated[int | None, BeforeValidator(_unit)]


class Certainty(Enum):
    """What a table rests on."""

    DOCUMENT = "document"  # the maker's or operator's own description
    AGREE = "agree"  # independent public sources say the same
    ONE = "one"  # one source
    SEEN = "seen"  # telegrams alone, checked by sums


class Part(BaseModel):
    """A part of a table: unknown keys are refused, nothing changes afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Table(Part):
    """A whole table; its name is that of its file."""

    name: str = ""
    title: str
    source: str


T = TypeVar("T", bound=Table)


def shipped_tables(model: type[T], package: str, folder: str) -> Mapping[str, T]:
    """The tables in a folder of a package by their names, in order."""
    files = resources.files(package).joinpath(folder).iterdir()
    named = sorted((file.name.removesuffix(".toml"), file) for file in files if file.name.endswith(".toml"))
    return {name: _parse(model, name, file.read_text("utf-8")) for name, file in named}


def find_table(model: type[T], shipped: Mapping[str, T], name_or_file: str, others: Sequence[str] = ()) -> T:
    """
    A shipped table by its name, or a user's own out of a file.

    Raises LocalProtocolError that says which names there are (`others` beside the shipped), or where in the file what
    was expected.
    """
    if name_or_file in shipped:
        return shipped[name_or_file]
    path = Path(name_or_file)
    if path.suffix != ".toml":
        names = ", ".join([*others, *shipped])
        raise LocalProtocolError(f"no table {name_or_file!r}: expected a file that ends .toml, or one of {names}")
    try:
        with path.open("rb") as file:
            data = file.read(FILE_SIZE_MAX + 1)
    except OSError as error:
        raise LocalProtocolError(f"{name_or_file}: cannot be read ({error.strerror})") from None
    if len(data) > FILE_SIZE_MAX:
        raise LocalProtocolError(f"{name_or_file}: a table has at most {FILE_SIZE_MAX} octets")
    try:
        return _parse(model, path.stem, data.decode("utf-8"))
    except UnicodeDecodeError:
        raise LocalProtocolError(f"{name_or_file}: no text in UTF-8") from None


def _parse(model: type[T], name: str, text: str) -> T:
    try:
        return model.model_validate({"name": name, **tomllib.loads(text)})
    except tomllib.TOMLDecodeError as error:
        raise LocalProtocolError(f"table {name}: no TOML ({error})") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise LocalProtocolError(f"table {name}: {where}{': ' if where else ''}{said}") from None


def exact(number: float) -> tuple[int | None, int]:
    """Mantissa and power of ten of a binary fraction, exactly; None for NaN and infinity."""
    if not math.isfinite(number):
        return None, 0
    sign, digits, exponent = Decimal(number).as_tuple()
    mantissa = int("".join(map(str, digits)))
    return (-mantissa if sign else mantissa), int(exponent)
