"""
Programs that read a gateway at home, written by others: py-ppc-smgw and theben-conexa-smgw, each in its environment.

Each program takes an address, a user name and a password, and prints what it has read as JSON.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import trio

_ROOT = Path(__file__).parents[2]
PPC = Path(os.environ.get("STROMKREIS_PEERS_PPC", _ROOT / ".venv-peers-ppc/bin/python"))
THEBEN = Path(os.environ.get("STROMKREIS_PEERS_THEBEN", _ROOT / ".venv-peers-theben/bin/python"))
_READ_S = 120

PPC_PROGRAM = """
import asyncio, json, logging, sys, httpx
from py_ppc_smgw import PPCSMGWClient
base, user, password, *span = sys.argv[1:]
url = base + "/cgi-bin/hanservice.cgi"

async def main():
    found = {}
    async with httpx.AsyncClient(verify=False) as http:
        for turn in range(2):  # a second time: the session of the first must not be in the way
            async with PPCSMGWClient(url, user, password, http, logging.getLogger("peer")) as client:
                meters = await client.get_meters()
                found["meters"] = [each.name for each in meters]
                found["readings"] = {
                    meter.name: {str(obis): [each.value, each.timestamp.isoformat()]
                                 for obis, each in (await client.get_meter_reading(meter)).items()}
                    for meter in meters}
                profile = await client.get_meter_profile(meters[0])
                found["profile"] = [profile.device_identifier, profile.samplerate_s, profile.active,
                                    [str(each) for each in profile.captured_obis]]
                entries = await client.export_meter_values(meters[0], *span) if span else []
                found["entries"] = [[str(each.obis), each.value, each.scaler, each.unit, each.status,
                                     each.capture_time.isoformat()] for each in entries]
                found["versions"] = [[each.component, each.version, each.checksum]
                                     for each in await client.get_firmware_versions()]
            found["is_out"] = not client.session_active()
    print(json.dumps(found))

asyncio.run(main())
"""

# The package is made for Python 3.14, where annotations are evaluated late; its own source is compiled in that way.
THEBEN_PROGRAM = """
import __future__, asyncio, dataclasses, importlib.util, json, pathlib, sys, types
folder = pathlib.Path(importlib.util.find_spec("theben_conexa_smgw").origin).parent
peer = types.ModuleType("theben_peer")
sys.modules["theben_peer"] = peer
source = (folder / "smgw.py").read_text()
flag = __future__.annotations.compiler_flag
exec(compile(source, str(folder / "smgw.py"), "exec", flags=flag), peer.__dict__)
import aiohttp
base, user, password = sys.argv[1:]

async def main():
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        host = base.removeprefix("https://")
        gateway = await peer.ConexaSMGW.create(session, host, user, password)
        values = await gateway.getLatestValues()
        print(json.dumps({
            "info": dataclasses.asdict(gateway.gatewayInfo), "url": gateway.m2mUrl,
            "values": {obis: dataclasses.asdict(each) for obis, each in values.items()},
        }))

asyncio.run(main())
"""


def needs(peer: Path) -> None:
    """Skip where the environment of a peer is missing; in CI that fails."""
    if not peer.exists():
        message = f"no {peer}: make peers (wants Python 3.13, or root and debootstrap to get it)"
        if "CI" in os.environ:
            pytest.fail(message)
        pytest.skip(message)


async def read(peer: Path, program: str, base: str, login: tuple[str, str], *span: str) -> Any:
    """What a peer has read; py-ppc-smgw exports the values of a span."""
    needs(peer)
    with trio.fail_after(_READ_S):
        done = await trio.run_process(
            [str(peer), "-W", "ignore", "-c", program, base, *login, *span],
            capture_stdout=True, capture_stderr=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return json.loads(done.stdout)
