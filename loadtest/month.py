"""
A month of deliveries: gateways take profile sets, derive TAF 1, 2, 6 and 7, and the market participant gets all of it.

    python -m loadtest.month DIRECTORY [--gateways 500] [--kills 3]

A coordinator and a node run as processes of their own.  The node has the parts of each gateway that profiles and
deliveries need (keys, store, use cases, deliveries), and a month of registers instead of meters.  `stromkreis gwa`
rolls the profiles out; while gateways deliver, the node is killed with SIGKILL and started again.  In the end
`stromkreis emp export` is held against the registers that were made: not against the log.  Exit status 1 where a value
is missing, twice, or wrong.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import httpx
import numpy as np
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from coordinator.gwa.enrolment import Directory
from coordinator.storage.store import Store as CoordinatorStore
from loadtest.network import free_port
from node.config import NodeConfig
from node.gateway_config import GatewayConfig
from node.logs.gateway_log import GatewayLog
from node.metering.entries import LoggedReading, encode_block
from node.metering.log import MeteringLog
from node.metrics import NodeMetrics
from node.profiles.checking import text_of
from node.profiles.gateway_profiles import GatewayProfiles
from node.security.module import GatewaySecurityModule, KeyDirectory
from node.storage.cipher import store_cipher
from node.storage.engine import Store
from node.storage.repositories.gateway_logs import GatewayLogRepository
from node.storage.repositories.metering_log import MeteringLogRepository
from node.storage.repositories.profile_sets import ProfileSetRepository
from node.storage.repositories.use_cases import UseCaseRepository
from node.taf.use_cases import UseCases
from node.trust import TrustStore
from node.wan.administration import Administration
from node.wan.deliveries import Deliveries, DeliveryServices
from node.wan.enrolment import Enroller, coordinator_client
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.link.tls import client_context
from protocol.metering.interval import DAY_S, day_of
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality

IMPORT: Final = Obis(1, 0, 1, 8, 0, 255)
MONTH_S: Final = 1_790_805_600  # 2026-10-01 00:00 by German legal time
COUNT: Final = 31 * 96 + 4  # quarter hours: summer time ends in it
END_S: Final = MONTH_S + COUNT * 900
SUMMER_END_S: Final = int(datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp())
_LOOK_S: Final = 0.1
TAFS: Final = (1, 2, 6, 7)


def registers_of(name: str) -> NDArray[np.int64]:
    """What a gateway's meter shows at each quarter hour of the month, both ends included, Wh."""
    draw = np.random.default_rng(int(name[-8:]))
    return int(draw.integers(10**6, 10**8)) + np.concatenate([[0], np.cumsum(draw.integers(0, 900, COUNT))])


def names(count: int) -> list[str]:
    """Ids of the gateways."""
    return [f"ESTK02{number:08d}" for number in range(count)]


# --- the node ---------------------------------------------------------------------------------------------------------


async def run_node(directory: Path, count: int, web: str) -> None:
    """The gateways' part of it, until killed."""
    config = NodeConfig(
        data_dir=directory / "node", coordinator=web, root_certificate=directory / "coordinator/pki/root.pem",
        area="north", token=SecretStr((directory / "token").read_text()),
        gateways=tuple(GatewayConfig(id=name, meters=("sml+tcp://127.0.0.1:1",)) for name in names(count)),
    )  # fmt: skip
    config.data_dir.mkdir(parents=True, exist_ok=True)
    root = x509.load_pem_x509_certificate(config.root_certificate.read_bytes())
    registry = CollectorRegistry()
    with (
        closing(KeyDirectory(config.keys_path, StandardSuite())) as keys,
        closing(Store(config.store_path, store_cipher(keys))) as store,
    ):
        async with store.writing(), trio.open_nursery() as nursery, coordinator_client(config) as client:
            async with Enroller(config) as enroller:
                modules = []
                for gateway in config.all_gateways():
                    modules.append(keys.open(gateway.id))
                    await enroller.enrol(modules[-1], gateway)
            repository = MeteringLogRepository(store)
            if not (directory / "filled").exists():
                for module in modules:
                    await store.write(_month(repository, module.identity))
                (directory / "filled").touch()
            services = DeliveryServices(
                repository=UseCaseRepository(store), trust=TrustStore(root, time.time),
                metrics=NodeMetrics(registry), tls_context=partial(client_context, config.root_certificate),
            )  # fmt: skip
            gateways = [_start(nursery, store, module, services) for module in modules]
            (directory / "ready").touch()
            await Administration(client, lambda: gateways, 1.0).run()


def _month(repository: MeteringLogRepository, name: str) -> list[Any]:
    by_day: dict[int, list[LoggedReading]] = defaultdict(list)
    for index, value in enumerate(registers_of(name).tolist()):
        at_s = MONTH_S + index * 900
        by_day[day_of(at_s)].append(
            LoggedReading(f"{name}/0", IMPORT, value, 0, 30, None, at_s * 1000, at_s * 1000, at_s, 0, True,
                          Quality.VALID)
        )  # fmt: skip
    return [repository.put_block(name, f"{name}/0", IMPORT, day, encode_block(each)) for day, each in by_day.items()]


def _start(
    nursery: trio.Nursery, store: Store, module: GatewaySecurityModule, services: DeliveryServices
) -> GatewayProfiles:
    name = module.identity
    notes = GatewayLog(GatewayLogRepository(store), name, time.time, module.sign)
    notes.serve_in(nursery)
    profiles = GatewayProfiles(
        ProfileSetRepository(store), module, services.trust, {f"{name}/0": f"{name}/0"}, notes.note, time.time
    )
    deliveries = Deliveries(services, module, profiles, notes.note, Random(name))
    metering = MeteringLog(MeteringLogRepository(store), name, time.time)
    cases = UseCases(
        metering, profiles, services.repository, module, lambda: END_S + 2 * DAY_S, time.time, deliveries.wake
    )
    nursery.start_soon(cases.run)
    nursery.start_soon(deliveries.run)
    return profiles


# --- the run ----------------------------------------------------------------------------------------------------------


def template(directory: Path, port: int) -> dict[str, Any]:
    """One profile set for all gateways, for `stromkreis gwa profiles roll-out`."""
    pki = directory / "coordinator/pki"
    tls, encryption = (
        x509.load_pem_x509_certificates((pki / f"{name}.pem").read_bytes())[0] for name in ("emt-tls", "emt-encryption")
    )
    day = [{"at": "00:00", "stage": 1}, {"at": "06:00", "stage": 2}, {"at": "22:00", "stage": 1}]
    calendar = {
        "day_profiles": [{"id": "d", "switches": day}], "seasons": [{"begins": "01-01", "weekdays": ["d"] * 7}],
    }  # fmt: skip
    cases: dict[int, dict[str, Any]] = {2: {"calendar": calendar}, 6: {"days": 10}}
    timed = {"valid_from": "2026-01-01T00:00:00Z"}
    return {
        "gateway": "{gateway}", "version": 1, "issued_at": "2026-10-01T12:00:00+02:00",
        "meters": [timed | {"id": "m", "device": "{gateway}/0", "protocol": "sml", "registers": [str(IMPORT)]}],
        "processing": [
            timed | {
                "id": f"taf{taf}", "metering_point": f"DE{'0' * 23}{{number}}", "obis": str(IMPORT),
                "meters": [{"meter": "m"}], "use_case": {"taf": taf} | cases.get(taf, {}),
                "billing_period": {"begins": "2026-01-01T00:00:00+01:00", "months": 1},
                "recipients": [{"participant": "emp", "communication": "emp", "delivery": "direct"}],
            }
            for taf in TAFS
        ],
        "wan": [timed | {
            "id": "emp", "role": "participant", "uri": f"https://127.0.0.1:{port}/cosem/deliveries",
            "tls_certificate": tls.fingerprint(hashes.SHA256()).hex(), "signature_certificate": "00" * 32,
            "encryption_certificate": encryption.fingerprint(hashes.SHA256()).hex(),
        }],
        "certificates": [text_of(encryption)],
    }  # fmt: skip


def mistakes(rows: Sequence[dict[str, str]], count: int) -> list[str]:
    """What an export does not say exactly once and exactly as the meters had it."""
    found: dict[tuple[str, str], dict[tuple[str, str], str]] = defaultdict(dict)
    wrong = []
    for each in rows:
        what = found[each["sender"], each["taf"]]
        key = f"{each['kind']} {each['obis']}", each["time"]
        if key in what:
            wrong.append(f"{each['sender']} TAF {each['taf']}: {each['obis']} of {each['time']} twice")
        what[key] = each["value"]
    hours = np.array([_hour(MONTH_S + index * 900) for index in range(COUNT)])
    is_day = (hours >= 6) & (hours < 22)
    for name in names(count):
        registers = registers_of(name)
        energies = np.diff(registers)
        for taf, wanted in _wanted(registers, energies, is_day).items():
            if found[f"{name.lower()}.sm", str(taf)] != wanted:
                wrong.append(f"{name} TAF {taf}: not what the meter had")
    return wrong


def _hour(at_s: int) -> int:
    return (at_s // 3_600 + (2 if at_s < SUMMER_END_S else 1)) % 24


def _wanted(
    registers: NDArray[np.int64], energies: NDArray[np.int64], is_day: NDArray[np.bool_]
) -> dict[int, dict[tuple[str, str], str]]:
    def register(stage: int, value: int) -> tuple[tuple[str, str], str]:
        return (f"register {IMPORT._replace(e=stage)}", _time(END_S)), str(value)

    def value(index: int) -> tuple[tuple[str, str], str]:
        return (f"value {IMPORT}", _time(MONTH_S + index * 900)), str(registers[index])

    total, day = int(energies.sum()), int(energies[is_day].sum())
    midnights = [index for index in range(COUNT + 1) if _is_midnight(MONTH_S + index * 900)][-11:]
    return {
        1: dict([register(0, total), value(0), value(COUNT)]),
        2: dict([register(0, total), register(1, total - day), register(2, day), register(63, 0)]),
        6: dict(map(value, midnights)),
        7: dict(map(value, range(COUNT + 1))),
    }


def _is_midnight(at_s: int) -> bool:
    return _hour(at_s) == 0 and at_s % 3_600 == 0


def _time(at_s: int) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


class Process:
    """`python -m` something of ours, its output in a file."""

    def __init__(self, directory: Path, log: str, *arguments: str) -> None:
        self._log = directory / log
        self._arguments = arguments
        self.start()

    def start(self) -> None:
        """Start it, again where it was killed."""
        with self._log.open("ab") as output:
            command = [sys.executable, "-m", *self._arguments]
            self._child = subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603  our own programs

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        os.kill(self._child.pid, signal.SIGKILL)
        self._child.wait()

    def check(self) -> bool:
        """False; raises RuntimeError where it has ended by itself."""
        if self._child.poll() is not None:
            raise RuntimeError(f"it ended with status {self._child.returncode}: see {self._log}")
        return False

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.terminate()
        self._child.wait(30)


def command(*arguments: str) -> str:
    """The last line that `stromkreis` with these arguments says."""
    whole = [sys.executable, "-m", "stromkreis", *arguments]
    done = subprocess.run(whole, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)  # noqa: S603
    return (done.stdout.decode().strip().splitlines() or [""])[-1]


def main() -> int:
    """Run it; see the head of the file."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.month", description="A month of deliveries.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--gateways", type=int, default=500)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--node", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.node is not None:
        trio.run(run_node, options.directory, options.gateways, options.node)
        return 0
    options.directory.mkdir(parents=True, exist_ok=True)
    return run(options.directory.resolve(), options.gateways, options.kills)


def run(directory: Path, count: int, kills: int) -> int:
    """Roll out, deliver, kill, compare; the exit status."""
    web, inbox = free_port(), free_port()
    config, pki = directory / "stromkreis.toml", directory / "coordinator/pki"
    config.write_text(
        f'[coordinator]\nlisten = "tcp://127.0.0.1:{free_port()}"\ndata_dir = "{directory / "coordinator"}"\n'
        f'areas = ["north"]\n[coordinator.web]\nlisten = ["https://127.0.0.1:{web}"]\n'
        f'[coordinator.deliveries]\ninbox = "https://127.0.0.1:{inbox}"\n'
    )
    token_file = directory / "coordinator/operator.token"
    options = [
        "--coordinator", f"https://127.0.0.1:{web}", "--root", str(pki / "root.pem"), "--token-file", str(token_file),
    ]  # fmt: skip
    with Process(directory, "coordinator.log", "stromkreis", "coordinator", "-c", str(config)) as coordinator:
        _wait(lambda: coordinator.check() or (token_file.exists() and _answers(pki, web)), 60)
        with closing(CoordinatorStore(f"sqlite:///{directory / 'coordinator/coordinator.sqlite'}")) as store:
            (directory / "token").write_text(Directory(store.gateways).create_token(datetime.now(UTC), uses=count))
            began_s = time.monotonic()
            node_arguments = [str(directory), "--gateways", str(count), "--node", f"https://127.0.0.1:{web}"]
            with Process(directory, "node.log", "loadtest.month", *node_arguments) as node:
                _wait(lambda: node.check() or (directory / "ready").exists(), 1_800)
                print(f"{count} gateways enrolled and filled in {time.monotonic() - began_s:.0f} s", flush=True)
                (directory / "profiles.json").write_text(json.dumps(template(directory, inbox)))
                began_s = time.monotonic()
                told = command(
                    "gwa", *options, "profiles", "roll-out", str(directory / "profiles.json"), "--wait", "900"
                )
                print(f"rolled out in {time.monotonic() - began_s:.0f} s: {told}", flush=True)
                _deliver(store, node, 4 * count, kills)
                taken_s = time.monotonic() - began_s
            print(f"{4 * count} deliveries in {taken_s:.0f} s from the roll-out on, {4 * count / taken_s:.1f}/s")
            octets = sum(len(each.message) for each in store.deliveries.page(limit=10**6)) / count
        values = directory / "values.csv"
        print(command("emp", *options, "export", str(values), "--from", "2026-09-01", "--to", "2026-11-01"))
    with values.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wrong = mistakes(rows, count)
    print(f"{len(rows)} values, {len(wrong)} mistakes; {octets:.0f} octets of messages a gateway and month")
    for each in wrong[:10]:
        print(each)
    return int(bool(wrong) or not rows)


def _deliver(store: CoordinatorStore, node: Process, wanted: int, kills: int) -> None:
    """Until all are there; the node is killed `kills` times on the way."""
    for number in range(1, kills + 1):
        share = number * wanted // (kills + 1)
        _wait(lambda share=share: node.check() or _delivered(store) >= share, 1_800)  # type: ignore[misc]
        node.kill()
        print(f"killed with {_delivered(store)} of {wanted} deliveries", flush=True)
        node.start()
    _wait(lambda: node.check() or _delivered(store) >= wanted, 1_800)


def _answers(pki: Path, port: int) -> bool:
    try:
        context = client_context(pki / "root.pem")
        return httpx.get(f"https://127.0.0.1:{port}/healthz", verify=context).is_success
    except (httpx.HTTPError, OSError, ValueError):
        return False


def _delivered(store: CoordinatorStore) -> int:
    with store.database.read() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM deliveries").scalar_one())


def _wait(condition: Callable[[], object], timeout_s: float) -> None:
    until_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until_s:
            raise TimeoutError(f"not after {timeout_s:g} s")
        time.sleep(_LOOK_S)


if __name__ == "__main__":
    sys.exit(main())
