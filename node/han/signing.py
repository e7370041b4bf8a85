"""
Signatures of single values by the gateway, for whoever passes one value on (PTB-A 50.8: each is traced to its meter).

What is signed says of a value all that its meaning hangs on, as one line of text (`text_of_value`), with the gateway's
signature key.  The same value is asked for again and again by programs that poll, so signatures are remembered.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from threading import Lock
from typing import Final, Protocol

from node.han.models import Period, RegisterValue
from protocol.metering.obis import Obis

PURPOSE: Final = "stromkreis register value 1"
PURPOSE_DERIVED: Final = "stromkreis derived register 1"
SIGNED_MAX: Final = 3_100
"""Values that are signed for one answer: a month of quarter hours (a signature takes a millisecond or two)."""
_REMEMBERED: Final = 4_096


class Signer(Protocol):
    """See node.security.module.GatewaySecurityModule."""

    @property
    def certificate(self) -> bytes | None: ...  # noqa: D102
    def sign(self, text: bytes) -> bytes: ...  # noqa: D102


def logical_name(obis: str | Obis, device: str) -> str:
    """A register of a device as the COSEM services name it: six octets, device, `sm` (annex II, section 6.1)."""
    code = Obis.parse(obis) if isinstance(obis, str) else obis
    return f"{code.to_bytes().hex()}.{device}.sm"


def text_of_value(device: str, value: RegisterValue) -> str:
    """
    What a signature covers: nine fields with `;` between them.

    Purpose, logical name, time measured, registration time or nothing, mantissa, scaler, unit, quality, status word or
    nothing; times in UTC to the millisecond.
    """
    registered = "" if value.registered_for is None else _time(value.registered_for)
    fields = (
        PURPOSE, logical_name(value.obis, device), _time(value.measured_at), registered, value.value, str(value.scaler),
        value.unit or "", value.quality if value.is_on_time else "late", value.status or "",
    )  # fmt: skip
    return ";".join(fields)


def text_of_register(name: str, period: Period, value: str) -> str:
    """
    What a signature of a derived register covers: eight fields with `;` between them.

    Purpose, logical name, start, end, mantissa, scaler, unit, whether the period is complete.
    """
    fields = (
        PURPOSE_DERIVED, name, _time(period.start), _time(period.end), value, str(period.scaler), period.unit,
        "complete" if period.is_complete else "incomplete",
    )  # fmt: skip
    return ";".join(fields)


class ValueSigner:
    """One gateway's; any thread may ask."""

    def __init__(self, module: Signer) -> None:
        self._module = module
        self._lock = Lock()
        self._known: OrderedDict[bytes, bytes] = OrderedDict()

    def sign(self, device: str, value: RegisterValue) -> bytes:
        """ECDSA over `text_of_value` (UTF-8), DER.  Raises LocalProtocolError before the gateway is enrolled."""
        return self.sign_text(text_of_value(device, value))

    def sign_text(self, text: str) -> bytes:
        """The same for a text that is given.  Raises LocalProtocolError before the gateway is enrolled."""
        octets = text.encode()
        key = hashlib.sha256((self._module.certificate or b"") + octets).digest()
        return self._remembered(key, lambda: self._module.sign(octets))

    def _remembered(self, key: bytes, make: Callable[[], bytes]) -> bytes:
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known
        made = make()
        with self._lock:
            self._known[key] = made
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return made


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
