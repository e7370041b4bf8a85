"""
What all facades share: whose paths they are, who may use them, and values in the form that their clients expect.

A facade sees what the consumer's view shows and nothing else.  It is off until the HAN profile of the account names it;
where it is off there is nothing at its paths.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final, Protocol

from node.han.api import HanAnswer, HanRequest, failure
from node.han.models import RegisterValue
from node.han.signing import ValueSigner
from node.han.view import NotThere
from node.storage.errors import SealError, StoreError
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis, is_cumulative

_ENERGY: Final = (1, 2)
_DIGITS_MAX: Final = 18


class Facade(Protocol):
    """One device's interface."""

    name: str

    def owns(self, path: str) -> bool:
        """Whether a path is one of that device's."""
        ...

    async def answer(self, request: HanRequest) -> HanAnswer:
        """
        Answer a request for one of its paths.

        Raises NotThere, RemoteProtocolError for what was asked, StoreError, SealError.
        """
        ...


class Facades:
    """The facades of one gateway."""

    def __init__(self, facades: Sequence[Facade] = ()) -> None:
        self._facades = facades

    def of(self, path: str) -> Facade | None:
        """Whose path it is."""
        return next((each for each in self._facades if each.owns(path)), None)

    async def answer(self, facade: Facade, request: HanRequest) -> HanAnswer:
        """Answer a request.  Never raises for what a client sends."""
        if facade.name not in request.account.facades:
            return failure(404, "not_there", "there is the page at / and the HAN API at /smgw/")
        try:
            return await facade.answer(request)
        except NotThere:
            return failure(404, "not_there", "there is no such resource")
        except RemoteProtocolError as error:
            return failure(400, error.reason, error.detail)
        except (StoreError, SealError):
            return failure(503, "store", "the gateway's store cannot be read; try again later")


def energy_first(values: Iterable[RegisterValue]) -> list[RegisterValue]:
    """In the order of registers, but active energy before all others: many clients take the first row."""
    return sorted(values, key=lambda each: (not is_active_energy(Obis.parse(each.obis)), Obis.parse(each.obis)))


def is_active_energy(obis: Obis) -> bool:
    """Whether it is the total of energy drawn or fed in."""
    return (obis.a, obis.d, obis.e, obis.f) == (1, 8, 0, 255) and obis.c in _ENERGY


def counters(registers: Iterable[str]) -> list[Obis]:
    """Registers that only rise, active energy first."""
    found = [obis for obis in map(Obis.parse, registers) if is_cumulative(obis)]
    return sorted(found, key=lambda obis: (not is_active_energy(obis), obis))


def decimal_of(value: RegisterValue) -> tuple[str, str]:
    """A plain decimal number and its unit; energy in kWh."""
    is_energy = value.unit in {"Wh", "varh", "VAh"}
    number = Decimal(value.value).scaleb(value.scaler - (3 if is_energy else 0))
    unit = f"k{value.unit}" if is_energy else value.unit or ""
    return format(number, "f"), unit


def number_of(text: object) -> int | None:
    """A number that a form or a document has as text; None for anything else, and for one of over 18 digits."""
    found = str(text)
    return int(found) if found.isdecimal() and len(found) <= _DIGITS_MAX else None


def is_valid(value: RegisterValue) -> bool:
    """Whether it may be billed."""
    return value.is_on_time and value.quality == "valid"


def signature_of(signer: ValueSigner, device: str, value: RegisterValue) -> str:
    """In hexadecimal; nothing before the gateway is enrolled."""
    try:
        return signer.sign(device, value).hex()
    except LocalProtocolError:
        return ""
