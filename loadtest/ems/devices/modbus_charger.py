"""
A charger that is limited over Modbus TCP: pymodbus' own server, one holding register with the limit in 10 W.

    python -m loadtest.ems.devices.modbus_charger

Tells its port, and each limit at the moment from which it holds.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from loadtest.ems.devices.told import standard_input, tell

UNIT: Final = 1
LIMIT_REGISTER: Final = 1000
LIMIT_STEP_W: Final = 10
POWER_MAX_W: Final = 22_000
_WRITE_FUNCTIONS: Final = (6, 16)


async def _on_request(
    function: int, _start: int, address: int, _count: int, _registers: list[int],
    values: list[int] | list[bool] | None,
) -> ExcCodes | None:  # fmt: skip
    if function in _WRITE_FUNCTIONS and values:
        limit_w = int(values[0]) * LIMIT_STEP_W
        if address != LIMIT_REGISTER or limit_w > POWER_MAX_W:
            return ExcCodes.ILLEGAL_VALUE
        tell("applied", limit_w=limit_w)
    return None


async def main() -> None:
    """Serve until standard input ends."""
    registers = SimData(LIMIT_REGISTER, values=[POWER_MAX_W // LIMIT_STEP_W], datatype=DataType.REGISTERS)
    device = SimDevice(UNIT, simdata=[registers], action=_on_request)
    server = ModbusTcpServer(device, address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    transport: Any = server.transport
    tell("listening", port=transport.sockets[0].getsockname()[1])
    await (await standard_input()).read()


if __name__ == "__main__":
    asyncio.run(main())
