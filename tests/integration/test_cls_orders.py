"""Scenario HKS4 over real sockets and processes: a participant's curl reaches a device at home through the gateway."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from coordinator.config import WebConfig
from coordinator.storage.store import Store
from loadtest.network import Network, started
from loadtest.ports import free_port
from node.cls_config import ClsConfig
from node.fleet import run as run_node
from node.profiles.checking import text_of
from protocol.errors import RemoteProtocolError
from protocol.link.tls import client_context
from protocol.pki.han import HanRole
from stromkreis.cls_adapter import context_of
from stromkreis.socks_adapter import Gateway
from stromkreis.system_server import shown_certificate
from tests.integration.test_cls_initiator import PAGE, device
from tests.unit.socks_tls_pair import SYSTEM, credentials

GATEWAY = "ESTK0000000000"
SHA256 = hashes.SHA256()


@asynccontextmanager
async def command(*arguments: str) -> Any:
    """A command of ours as a process, once it has said where it listens; ends it by SIGTERM."""
    async with trio.open_nursery() as nursery:
        run = partial(
            trio.run_process, [sys.executable, "-m", "stromkreis", *arguments], stderr=subprocess.PIPE, check=False
        )
        process: trio.Process = await nursery.start(run)
        assert process.stderr is not None
        lines = b""
        while b"\n" not in lines:
            said = await process.stderr.receive_some()
            assert said, lines
            lines += said
        yield process, lines.decode()
        process.terminate()


def document(tls: int, cls_port: int, pki_folder: Path) -> dict[str, Any]:
    timed = {"valid_from": "2020-01-01T00:00:00Z"}
    certificate = credentials(HanRole.CLS, SYSTEM)[1]
    participant = x509.load_pem_x509_certificates((pki_folder / "emt-tls.pem").read_bytes())[0]
    return {
        "gateway": GATEWAY, "version": 1, "issued_at": datetime.now(UTC).isoformat(),
        "certificates": [text_of(certificate)],
        "han": [timed | {
            "id": "h1", "role": "cls", "user": "heat-pump", "certificate": certificate.fingerprint(SHA256).hex(),
        }],
        "proxy": [timed | {
            "id": "x1", "cls": "heat-pump", "participant": "Stadtwerke", "server_name": "emp.example",
            "address": f"127.0.0.1:{tls}", "initiators": ["participant"], "cls_address": f"127.0.0.1:{cls_port}",
            "participant_certificate": participant.fingerprint(SHA256).hex(),
        }],
    }  # fmt: skip


async def curl(port: int) -> subprocess.CompletedProcess[bytes]:
    return await trio.run_process(
        ["curl", "--silent", "--show-error", "--max-time", "120", f"http://127.0.0.1:{port}/soc"],
        capture_stdout=True, capture_stderr=True, check=False,
    )  # fmt: skip


async def test_a_participants_curl_reaches_a_device_through_a_cold_gateway(network: Network, tmp_path: Path) -> None:
    """
    The node asks by itself once an hour: profile and order come because the administrator has woken it up.

    The participant's program gives up after 50 s, so an answer is one in time.
    """
    orders, home, tls, cls_port = (free_port() for _ in range(4))
    network.gateways = 2
    network.web_config = WebConfig(listen=("https://127.0.0.1:0",), participants=f"https://127.0.0.1:{orders}")
    system = tmp_path / "cls.pem"
    system.write_bytes(credentials(HanRole.CLS, SYSTEM)[0])
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        config = network.node_config(0, 2, "node")
        at_home = {"cls": ClsConfig(listen=f"127.0.0.1:{home}", begins=True)}
        gateways = (config.gateways[0].model_copy(update=at_home), *config.gateways[1:])
        changed = {"gateways": gateways, "wake_up": f"127.0.0.1:{free_port()}", "profile_poll_s": 3_600.0}
        await started(nursery, partial(run_node, config.model_copy(update=changed)))
        assert network.coordinator_config is not None
        data = network.coordinator_config.data_dir
        listeners = await nursery.start(partial(trio.serve_tcp, device, 0, host="127.0.0.1"))
        shown = await home_certificate(home, system)
        adapter = command(
            "cls-adapter", "--certificate", str(system), "--gateway", f"127.0.0.1:{home}", "--gateway-sha256", shown,
            "--listen", "127.0.0.1:0", "--serve", f"127.0.0.1:{cls_port}",
            "--forward", f"127.0.0.1:{listeners[0].socket.getsockname()[1]}",
        )  # fmt: skip
        participant = command(
            "emp-tunnel", GATEWAY, "x1", "--administrator", f"https://127.0.0.1:{orders}",
            "--certificate", str(data / "pki/emt-tls.pem"), "--key", str(data / "pki/emt-tls.key"),
            "--root", str(data / "pki/root.pem"), "--tls", f"127.0.0.1:{tls}", "--listen", "127.0.0.1:0",
        )  # fmt: skip
        async with adapter, participant as (process, said):
            local = int(said.split(",")[0].rpartition(":")[2])
            refused = await curl(local)  # before there is a profile
            assert refused.returncode != 0
            assert b"no proxy profile of this id" in await process.stderr.receive_some()
            await roll_out(network, document(tls, cls_port, data / "pki"))
            got = await curl(local)
            if got.stdout != PAGE:
                raise AssertionError(f"{got.stderr!r}, {await process.stderr.receive_some()!r}")
            assert (await curl(local)).stdout == PAGE  # and again, warm
        nursery.cancel_scope.cancel()
    store = Store(network.coordinator_config.database_url)
    noted = [entry for entry, _ in store.audit.page(0, 100) if entry.action == "order_tunnel"]
    store.close()
    assert [(each.account, each.subject.split()[:2]) for each in noted] == [("Stadtwerke", [GATEWAY, "x1"])] * 2


async def home_certificate(port: int, file: Path) -> str:
    """The SHA-256 of the gateway's home certificate, as the letter beside it would say."""
    known = Gateway(host="127.0.0.1", port=port, fingerprint="", context=context_of(file))
    while True:
        with suppress(OSError, RemoteProtocolError, trio.BrokenResourceError):
            digest = hashes.Hash(SHA256)
            digest.update(await shown_certificate(known))
            return digest.finalize().hex()
        await trio.sleep(0.1)  # the gateway begins to listen when its node is ready


async def roll_out(network: Network, made: dict[str, Any]) -> None:
    assert network.coordinator_config is not None
    data = network.coordinator_config.data_dir
    token = (data / "operator.token").read_text().strip()
    async with httpx.AsyncClient(base_url=network.web[0], verify=client_context(data / "pki/root.pem")) as client:
        answer = await client.post(
            "/api/v1/profile-sets", content=json.dumps(made), headers={"Authorization": f"Bearer {token}"}
        )
        assert answer.status_code == 202, answer.text
