"""
The processes of a scenario as they run in the field: coordinator with the participant's inbox, gateway, CLS adapter.

The gateway is in no ring and needs none: it registers quarter hours in real time, delivers by its signed profiles, and
serves its home.  Everything that a profile must name is made here: keys, certificates, accounts.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import tomli_w
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from coordinator.config import CoordinatorConfig
from coordinator.gwa.ca import CertificateAuthority
from coordinator.gwa.enrolment import Directory
from coordinator.storage.store import Store
from loadtest.demo.processes import Child, Children, DemoError
from loadtest.ems.meter import IMPORT, POWER
from loadtest.ports import free_port
from node.han.digest import Algorithm, make_verifier
from node.profiles.checking import text_of

GATEWAY = "ESTK0100000001"
CONSUMER, PASSWORD = "anna", "measured at the meter"
POINT = f"DE{'0' * 23}00000001"
SYSTEM = "1STK0012345679"
SERVICES = ("box", "ocpp")
"""What systems at home connect to (scenario HKS3); NAME.emp.example is the localServerName."""
CHARGER = "charger"
"""The proxy profile by which the participant reaches the Modbus charger (scenario HKS4)."""
_START_S = 120.0
_AREA = "home"


@dataclass(frozen=True, slots=True)
class EmpValues:
    """How the participant gets values: a use case, its period, and the registration period behind it (s)."""

    taf: int
    period_s: int
    registration_s: int

    @property
    def nominal_s(self) -> int:
        """The distance of two values."""
        return self.period_s if self.taf == 14 else self.registration_s


EMP_VALUES = {
    "1s": EmpValues(14, 1, 900), "1min": EmpValues(14, 60, 900), "5min": EmpValues(13, 300, 300),
    "15min": EmpValues(13, 900, 900),
}  # fmt: skip


@dataclass(slots=True)
class Installation:
    """
    One run's; `work` gets all files.  Call `prepare`, then `start`, then `roll_out`.

    `display_s` is how often the consumer interface shows a new value.
    """

    work: Path
    group: Children
    display_s: int = 1
    ports: dict[str, int] = field(default_factory=dict)
    children: dict[str, Child] = field(default_factory=dict)
    _token: str = ""

    def prepare(self) -> None:
        """The PKI, an enrolment token, ports."""
        self.work.mkdir(parents=True, mode=0o700)
        names = (
            "ring", "https", "http", "inbox", "metrics", "han", "cls", "socks", "orders", "wake_up", "served",
            "emp_tls", "emp_modbus",
        )  # fmt: skip
        self.ports = {name: free_port() for name in names}
        config, now = CoordinatorConfig.model_validate(self._coordinator()), datetime.now(UTC)
        CertificateAuthority.create(config.pki_path, now, hosts=("localhost", "127.0.0.1"))
        with closing(Store(config.database_url)) as store:
            self._token = Directory(store.gateways).create_token(now, label="scenario", uses=1, area=_AREA)

    @property
    def pki(self) -> Path:
        """The files of the SM-PKI."""
        return self.work / "coordinator" / "pki"

    @property
    def operator_token(self) -> str:
        """Whoever shows it may export what was delivered."""
        return (self.work / "coordinator/operator.token").read_text().strip()

    def address(self, name: str) -> str:
        """The https address of a port."""
        return f"https://127.0.0.1:{self.ports[name]}"

    async def start_coordinator(self) -> None:
        """Returns when it answers.  Raises DemoError."""
        self._write("coordinator", {"coordinator": self._coordinator()})
        child = await self._start("coordinator", f"http://127.0.0.1:{self.ports['http']}/readyz")
        await self.group.until_ready([child], _START_S)

    async def start_gateway(self, meter_port: int) -> None:
        """Returns when the home's interface answers.  Raises DemoError."""
        self._write("node", {"node": self._node(meter_port)})
        await self._start("node", None)
        await trio.to_thread.run_sync(self.write_home_certificate)

    async def stop_gateway(self) -> None:
        """SIGTERM, and wait."""
        await self.group.stop([self.children["node"]])

    async def start_tunnel_ends(self, charger_port: int) -> None:
        """
        The communication adapter of the home's systems, and the participant's `emp-tunnel` to the charger.

        Returns when both listen.  Raises DemoError.
        """
        arguments = [
            "cls-adapter", "--certificate", str(self.work / "cls.pem"), "--gateway", f"127.0.0.1:{self.ports['cls']}",
            "--gateway-sha256", self._home_certificate().fingerprint(hashes.SHA256()).hex(),
            "--listen", f"127.0.0.1:{self.ports['socks']}", "--serve", f"127.0.0.1:{self.ports['served']}",
            "--forward", f"127.0.0.1:{charger_port}",
        ]  # fmt: skip
        child = self.children["adapter"] = await self.group.start("adapter", arguments)
        await _until_it_listens(child, self.ports["socks"])
        arguments = [
            "emp-tunnel", GATEWAY, CHARGER, "--administrator", self.address("orders"), "--certificate",
            str(self.pki / "emt-tls.pem"), "--key", str(self.pki / "emt-tls.key"), "--root", str(self.pki / "root.pem"),
            "--tls", f"127.0.0.1:{self.ports['emp_tls']}", "--listen", f"127.0.0.1:{self.ports['emp_modbus']}",
        ]  # fmt: skip
        child = self.children["emp-tunnel"] = await self.group.start("emp-tunnel", arguments)
        # Its port for gateways: a connection to the one for programs would be an order.
        await _until_it_listens(child, self.ports["emp_tls"])

    async def roll_out(self, wan_ports: Mapping[str, int], values: EmpValues | None) -> None:
        """Have the administrator sign the profile set, and wait until the gateway has taken it.  Raises DemoError."""
        await self._command("cls-adapter", "--certificate", str(self.work / "cls.pem"), "--id", SYSTEM)
        path = self.work / "profiles.json"
        path.write_text(json.dumps(self._profiles(wan_ports, values)), encoding="utf-8")
        await self._command(
            "gwa", "--coordinator", self.address("https"), "--root", str(self.pki / "root.pem"), "--token-file",
            str(self.work / "coordinator/operator.token"), "profiles", "roll-out", str(path), "--wait", "60",
        )  # fmt: skip

    def home_context(self) -> ssl.SSLContext:
        """For clients at home, who know the gateway by its certificate."""
        context = ssl.create_default_context(cafile=str(self.work / "han.pem"))
        context.check_hostname = False  # the certificate that came by letter is the name
        return context

    def write_home_certificate(self) -> None:
        """Keep the certificate that the gateway shows at home, as a household does from the letter."""
        for _ in range(int(_START_S / 0.2)):
            try:
                pem = ssl.get_server_certificate(("127.0.0.1", self.ports["han"]), timeout=5)
            except OSError:
                trio.from_thread.check_cancelled()
                trio.from_thread.run(trio.sleep, 0.2)
                continue
            (self.work / "han.pem").write_text(pem)
            return
        raise DemoError(f"the gateway's interface to the home did not answer within {_START_S:g} s")

    # --- configuration ------------------------------------------------------------------------------------------------

    def _home_certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.work / "han.pem").read_bytes())

    def _coordinator(self) -> dict[str, Any]:
        ports = self.ports
        return {
            "listen": f"tcp://127.0.0.1:{ports['ring']}", "data_dir": str(self.work / "coordinator"), "areas": [_AREA],
            "web": {"listen": [self.address("https"), f"http://127.0.0.1:{ports['http']}"],
                    "participants": self.address("orders")},
            "deliveries": {"inbox": self.address("inbox")},
        }  # fmt: skip

    def _node(self, meter_port: int) -> dict[str, Any]:
        ports = self.ports
        return {
            "data_dir": str(self.work / "node"), "coordinator": self.address("https"), "area": _AREA,
            "root_certificate": str(self.pki / "root.pem"), "token": self._token, "profile_poll_s": 1.0,
            "metrics": f"http://127.0.0.1:{ports['metrics']}", "wake_up": f"127.0.0.1:{ports['wake_up']}",
            "gateways": [{
                "id": GATEWAY, "meters": [f"sml+tcp://127.0.0.1:{meter_port}?push=1&interval_s=1"],
                "han": {"listen": self.address("han")}, "cls": {"listen": f"127.0.0.1:{ports['cls']}", "begins": True},
            }],
        }  # fmt: skip

    def _profiles(self, wan_ports: Mapping[str, int], values: EmpValues | None) -> dict[str, Any]:
        now = datetime.now(UTC)
        timed = {"valid_from": (now - timedelta(days=1)).isoformat()}
        tls, encryption, system = (
            x509.load_pem_x509_certificates(path.read_bytes())[0]
            for path in (self.pki / "emt-tls.pem", self.pki / "emt-encryption.pem", self.work / "cls.pem")
        )
        verifier = make_verifier(CONSUMER, GATEWAY.lower(), PASSWORD)
        return {
            "gateway": GATEWAY, "version": 1, "issued_at": now.isoformat(),
            "meters": [timed | {"id": "m", "device": f"{GATEWAY}/0", "protocol": "sml",
                                "display_interval_s": self.display_s, "registers": [str(IMPORT), str(POWER)],
                                "registration_period_s": 900 if values is None else values.registration_s}],
            "processing": [timed | each for each in _processing(values)],
            "wan": [timed | {
                "id": "emp", "role": "participant",
                "uri": f"https://127.0.0.1:{wan_ports['inbox']}/cosem/deliveries",
                "tls_certificate": _sha256(tls), "encryption_certificate": _sha256(encryption),
                "signature_certificate": "00" * 32,
            }],
            "han": [
                timed | {"id": "h1", "role": "consumer", "user": CONSUMER, "metering_points": [POINT],
                         "ha1_sha256": verifier[Algorithm.SHA256], "facades": ["ppc"]},
                timed | {"id": "h2", "role": "cls", "user": "home", "certificate": _sha256(system)},
            ],
            "proxy": [timed | each | {"cls": "home", "participant": "emp", "participant_certificate": _sha256(tls)}
                      for each in self._proxies(wan_ports)],
            "certificates": [text_of(encryption), text_of(system)],
        }  # fmt: skip

    def _proxies(self, wan_ports: Mapping[str, int]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [
            {"id": name, "server_name": f"{name}.emp.example", "address": f"127.0.0.1:{wan_ports[name]}",
             "initiators": ["cls"]}
            for name in SERVICES
        ]  # fmt: skip
        return [*found, {
            "id": CHARGER, "server_name": "charger.emp.example", "address": f"127.0.0.1:{wan_ports[CHARGER]}",
            "initiators": ["participant"], "cls_address": f"127.0.0.1:{self.ports['served']}",
        }]  # fmt: skip

    async def _start(self, name: str, ready_url: str | None) -> Child:
        arguments = [name, "--config", str(self.work / f"{name}.toml")]
        child = self.children[name] = await self.group.start(name, arguments, ready_url=ready_url)
        return child

    async def _command(self, *arguments: str) -> None:
        done = await trio.run_process(
            [sys.executable, "-m", "stromkreis", *arguments], capture_stdout=True, capture_stderr=True, check=False
        )
        if done.returncode:
            told = "\n".join((done.stdout + done.stderr).decode().strip().splitlines()[-12:])
            raise DemoError(f"stromkreis {arguments[0]}: status {done.returncode}:\n{told}")

    def _write(self, name: str, section: dict[str, Any]) -> None:
        path = self.work / f"{name}.toml"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(tomli_w.dumps(section))


def _processing(values: EmpValues | None) -> list[dict[str, Any]]:
    """The billing load profile, and beside it what the participant gets soon and never bills."""
    common = {
        "metering_point": POINT, "obis": str(IMPORT), "scaler": -1, "meters": [{"meter": "m"}],
        "billing_period": {"begins": "2026-01-01T00:00:00+01:00", "months": 1},
        "recipients": [{"participant": "emp", "communication": "emp", "delivery": "direct"}],
    }  # fmt: skip
    found: list[dict[str, Any]] = [common | {"id": "billing", "use_case": {"taf": 7}}]
    if values is not None:
        soon = common | {
            "use_case": {"taf": values.taf, "period_s": values.period_s},
            "registration_period_s": values.registration_s,
        }  # fmt: skip
        found += [soon | {"id": "soon"}]
        if values.taf == 14:
            found += [soon | {"id": "power", "obis": str(POWER), "scaler": 0}]
    return found


async def _until_it_listens(child: Child, port: int) -> None:
    with trio.move_on_after(_START_S):
        while not await _listens(port):
            await trio.sleep(0.1)
        return
    raise child.failure(f"did not listen within {_START_S:g} s")


async def _listens(port: int) -> bool:
    try:
        await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
    except OSError:
        return False
    return True


def _sha256(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()
