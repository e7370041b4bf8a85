"""The gateway's names and services as avahi finds them, over a cable between two network namespaces."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("mdns_home.sh")
ROOT = Path(__file__).parents[2]
TOOLS = ("avahi-daemon", "avahi-browse", "dbus-daemon", "unshare", "nsenter", "ip")
pytestmark = pytest.mark.skipif(
    not os.environ.get("CI") and (os.geteuid() != 0 or any(shutil.which(each) is None for each in TOOLS)),
    reason="wants root and avahi",
)


def test_avahi_finds_the_gateway_and_the_gateway_finds_avahis_names(tmp_path: Path) -> None:
    command = ["timeout", "450", "unshare", "-n", "-m", "bash", str(SCRIPT), sys.executable, str(tmp_path)]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=480, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found_by_avahi, _, found_by_us = ran.stdout.partition("gone\n")
    host, shared, ipv6, reverse, *services = found_by_avahi.splitlines()
    assert host.split() == ["estk0100000001.local", "192.168.77.1"]
    assert shared.split() == ["smgw.local", "192.168.77.1"]
    assert ipv6.split()[1].startswith("fe80::")
    assert reverse.split() == ["192.168.77.1", "estk0100000001.local"]
    found = {tuple(each.split(";")[index] for index in (2, 3, 4, 6, 8)) for each in services}
    for version in ("IPv4", "IPv6"):
        name = r"SMGW\032ESTK0100000001"
        assert (version, name, "_https._tcp", "estk0100000001.local", "443") in found
        assert (version, name, "_socks._tcp", "estk0100000001.local", "1080") in found
    assert any('"path=/"' in each for each in services if "_https" in each)
    pump, wallbox, service, over_ipv6 = (each.split() for each in found_by_us.splitlines())
    assert pump == ["heatpump.local", "192.168.77.9"]
    assert wallbox == over_ipv6 == ["wallbox.local", "fe80::77%veth0"]
    assert service[:2] == ["SMGW_ESTK0100000002", "1081"]
    assert "192.168.77.2" in service
    assert any(each.startswith("fe80::") for each in service)
