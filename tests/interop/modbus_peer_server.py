"""pymodbus' own server as a meter: `modbus_peer_server.py tcp PORT|serial PATH`, its registers as JSON on stdin."""

import asyncio
import json
import sys

from pymodbus.framer import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


async def main() -> None:
    """Serve until the process is ended."""
    given = json.loads(sys.stdin.readline())
    blocks = [
        SimData(int(address), values=words, datatype=DataType.REGISTERS) for address, words in given["blocks"].items()
    ]
    device = SimDevice(given["unit"], simdata=blocks)
    kind, place = sys.argv[1:3]
    if kind == "tcp":
        await ModbusTcpServer(device, address=("127.0.0.1", int(place))).serve_forever(background=True)
    else:
        await ModbusSerialServer(device, framer=FramerType.RTU, port=place, baudrate=9600).serve_forever(
            background=True
        )
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    await asyncio.sleep(3600)


asyncio.run(main())
