"""
A simulated P1 port (DSMR 5): a telegram every few seconds, with its CRC, and a gas meter on M-Bus channel 1 if wanted.

Registers come from the same callback as for every other protocol; what P1 has fixed formats for (energy in kWh with
three decimals, power in kW) is brought to them exactly, finer digits are cut as a real display cuts them.
Source: DSMR P1 companion standard 5.0.2 clauses 5 and 6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import trio

from loadtest.meters.iec62056_21 import Register, Registers
from node.lmn.dlms import apdu
from node.lmn.dlms.security import Keys, protect
from node.lmn.iec62056_21.checks import crc16_arc
from node.lmn.iec62056_21.quantities import decimal_text
from protocol.metering.reading import Reading
from protocol.metering.units import CUBIC_METRE, WATT, WATT_HOUR, unit_symbol

# (digits before the point, power of ten of the last digit) by unit: F9(3,3), F5(3,3), F8(3,3) of the standard.
_FORMATS = {WATT_HOUR: ("kWh", 6, 0), WATT: ("kW", 2, 0), CUBIC_METRE: ("m3", 5, -3)}
_WINTER = timezone(timedelta(hours=1))


@dataclass(frozen=True, slots=True)
class P1Settings:
    """The meter's and the gas meter's equipment ids; without a gas id there is no channel 1.  `version` 0: no CRC."""

    equipment_id: str
    gas_id: str = ""
    version: int = 50
    period_s: float = 1.0
    identification: str = "SKR5\\2STROMKREIS-P1"


def stamp(now: datetime) -> str:
    """`YYMMDDhhmmssW`: the simulated meter stays on standard time, as Nordic ones do."""
    return now.astimezone(_WINTER).strftime("%y%m%d%H%M%SW")


def _value(register: Register) -> str:
    obis, value, scaler, unit = register
    if unit not in _FORMATS:
        return f"{decimal_text(value, scaler, digits=3)}*{unit_symbol(unit)}"
    symbol, digits, last = _FORMATS[unit]
    mantissa = Reading("", obis, value, scaler, unit).at_scaler(last)
    return f"{decimal_text(mantissa, -3, digits=digits)}*{symbol}"


def telegram(settings: P1Settings, registers: Sequence[Register], now: datetime) -> bytes:
    """One whole telegram; registers in m³ go to the gas meter on channel 1."""
    lines = [f"/{settings.identification}", ""]
    if settings.version:
        lines += [f"1-3:0.2.8({settings.version})", f"0-0:1.0.0({stamp(now)})"]
    lines.append(f"0-0:96.1.1({settings.equipment_id.encode('ascii').hex().upper()})")
    gas = [register for register in registers if register[3] == CUBIC_METRE and settings.gas_id]
    for register in registers:
        if register not in gas:
            obis = register[0]
            lines.append(f"{obis.a}-{obis.b}:{obis.c}.{obis.d}.{obis.e}({_value(register)})")
    for register in gas[:1]:
        lines.append("0-1:24.1.0(003)")
        lines.append(f"0-1:96.1.0({settings.gas_id.encode('ascii').hex().upper()})")
        lines.append(f"0-1:24.2.1({stamp(now - timedelta(seconds=now.timestamp() % 300))})({_value(register)})")
    text = "".join(f"{line}\r\n" for line in lines).encode("ascii") + b"!"
    return text + (f"{crc16_arc(text):04X}".encode("ascii") if settings.version >= 40 else b"") + b"\r\n"


def encrypted(plain: bytes, keys: Keys, system_title: bytes, counter: int) -> bytes:
    """A telegram as meters in Luxembourg and Styria send it; see `node.lmn.p1.encrypted`."""
    return apdu.GeneralGlobalCiphering(system_title, protect(plain, keys, system_title, counter)).to_bytes()


async def serve(
    stream: trio.abc.SendStream, settings: P1Settings, registers: Registers, clock: Callable[[], datetime]
) -> None:
    """Push telegrams until the stream breaks."""
    try:
        while True:
            now = clock()
            await stream.send_all(telegram(settings, registers(now), now))
            await trio.sleep(settings.period_s)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return


async def serve_tcp(
    settings: P1Settings,
    registers: Registers,
    clock: Callable[[], datetime],
    port: int = 0,
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Push to everyone who connects to a loopback port, which is reported when it listens."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await serve(stream, settings, registers, clock)

    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    task_status.started(int(listeners[0].socket.getsockname()[1]))
    await trio.serve_listeners(handle, listeners)
