"""The REST interface: in process where HTTP is enough, over real sockets with brainpool TLS where it is not."""

from __future__ import annotations

import base64
import logging
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from fastapi import FastAPI
from fastapi.openapi.models import OpenAPI
from prometheus_client import CollectorRegistry

from coordinator.emp.billing import Billing
from coordinator.emp.billing_service import BillingService
from coordinator.gwa import ca
from coordinator.gwa.ca import CertificateAuthority
from coordinator.gwa.enrolment import Directory, Enrolment
from coordinator.gwa.participants import TariffSigner
from coordinator.gwa.revocation import RevocationPublisher
from coordinator.metrics import CoordinatorMetrics
from coordinator.status import Member, RingStatus, Status
from coordinator.storage.epochs import EpochRecord, RingLayout
from coordinator.storage.misbehaviour import StoredReport
from coordinator.storage.store import Store
from coordinator.web import dashboard
from coordinator.web.app import make_app
from coordinator.web.serve import serve
from protocol import pki
from protocol.dcnet.billing.tariff import Tariff, tariff_digest
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.group import Edwards25519
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA
from protocol.errors import LocalProtocolError
from protocol.link import web_server
from protocol.link.tls import client_context
from protocol.wire import Outcome

START = 1_772_582_400  # 2026-03-04T00:00:00Z
MEMBERS = tuple(pki.make_gateway_id(number) for number in range(8))
KEY = ec.derive_private_key(4711, ec.BrainpoolP256R1())
HUGE = 2**63 - 1


@dataclass
class Service:
    """A status source whose state the test sets."""

    now: Status = field(default_factory=lambda: Status(1, (), 0, 0))
    reason: str | None = None
    turned: trio.Event = field(default_factory=trio.Event)

    def status(self) -> Status:
        return self.now

    async def changed(self, revision: int) -> None:
        while self.now.revision == revision:
            await self.turned.wait()

    def described(self) -> str | None:
        return None

    def not_ready(self) -> str | None:
        return self.reason

    def turn(self) -> None:
        self.now = replace(self.now, revision=self.now.revision + 1)
        self.turned.set()
        self.turned = trio.Event()


def ended(ring: int, round_: int, total: tuple[int, ...] = (3, 1234, 0, -50), **changes: Any) -> Ended:
    made = Ended(
        1, ring, round_, Outcome.OPENED, 0, 1, 0b1111, 0b1011, tuple(word % 2**64 for word in total), True, "",
        START + 900.0, START + 900.03125,
    )  # fmt: skip
    return replace(made, **changes)


VOID: dict[str, Any] = {
    "outcome": Outcome.VOID,
    "roster": 0,
    "total": (),
    "verified": False,
    "reason": "no total in time",
}


@pytest.fixture
def store(tmp_path: Path) -> Any:
    store = Store(f"sqlite:///{tmp_path / 'coordinator.sqlite'}")
    store.epochs.add(
        EpochRecord(1, "Nordring", DEFAULT_SCHEMA, 96, START, 900),
        [RingLayout(1, 0, MEMBERS[:4]), RingLayout(1, 1, MEMBERS[4:])],
    )
    yield store
    store.close()


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def app(store: Store, service: Service) -> FastAPI:
    made = make_app(store, service, CoordinatorMetrics(CollectorRegistry()))

    @made.post("/slow", include_in_schema=False)
    async def _slow(body: dict[str, int]) -> None: ...

    return made


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://coordinator") as client:
        yield client


async def get(app: FastAPI, path: str, **query: Any) -> Any:
    async with client_of(app) as client:
        answer = await client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_totals_are_exact(app: FastAPI, store: Store) -> None:
    store.rounds.record_many([ended(0, 0, (3, HUGE, 1, -50)), ended(1, 0, (3, HUGE, 2, 20)), ended(0, 1)])
    span = {"from": "2026-03-04T00:00:00Z", "to": "2026-03-04T02:00:00+01:00"}
    first, second = (await get(app, "/api/v1/totals", area="Nordring", **span))["items"]
    assert first["interval_start"] == "2026-03-04T00:00:00Z"
    assert [v["value"] for v in first["values"]] == ["6", str(2 * HUGE), "3", "-30"]
    assert first["values"][1] | {"value": ""} == {
        "name": "energy_import", "obis": "1-0:1.8.0*255", "unit": "Wh", "scaler": -1, "kind": "energy", "value": "",
        "noise": None,
    }  # fmt: skip
    assert (first["final"], first["complete"], first["verified"]) == (True, True, True)
    assert (second["final"], second["complete"]) == (False, False)
    assert first["rings"] == {"total": 2, "opened": 2, "void": 0, "unranged": 0, "smallest": 4}
    assert first["gateways"] == {"enrolled": None, "members": 8, "present": 6}
    assert (await get(app, "/api/v1/totals", area="elsewhere", **span))["items"] == []


async def test_totals_by_page(app: FastAPI, store: Store) -> None:
    store.rounds.record_many([ended(0, round_) for round_ in range(5)])
    span: dict[str, Any] = {"from": "2026-03-04T00:00:00Z", "to": "2026-03-05T00:00:00Z", "limit": 2}
    starts: list[str] = []
    while True:
        page = await get(app, "/api/v1/totals", **span)
        starts += [item["interval_start"] for item in page["items"]]
        if page["next"] is None:
            break
        span["from"] = page["next"]
    assert starts == [f"2026-03-04T{m // 60:02d}:{m % 60:02d}:00Z" for m in range(0, 75, 15)]


async def test_rounds(app: FastAPI, store: Store) -> None:
    store.rounds.record_many([ended(0, 0), ended(1, 0, **VOID), ended(0, 1, attempt=1)])
    page = await get(app, "/api/v1/rounds", limit=2)
    newest, void = page["items"]
    assert (newest["round"], newest["attempt"], newest["present"], newest["latency_ms"]) == (1, 1, 3, 31.25)
    assert newest["missing"] == [{"position": 2, "gateway": MEMBERS[2]}]
    assert newest["head"] == {"position": 1, "gateway": MEMBERS[1]}
    assert (void["outcome"], void["reason"], len(void["missing"])) == ("void", "no total in time", 4)
    assert "total" not in newest
    rest = await get(app, "/api/v1/rounds", limit=2, cursor=page["next"])
    assert [r["round"] for r in rest["items"]] == [0]
    assert rest["next"] is None
    assert [r["ring"] for r in (await get(app, "/api/v1/rounds", outcome="void"))["items"]] == [1]


async def test_rings(app: FastAPI, service: Service) -> None:
    rings = tuple(
        RingStatus(
            epoch=1, ring=n, area="Nordring", size=4, honest_min=2, members=MEMBERS[:4], last_round=7,
            last_outcome="opened",
            missing=(Member(position=3, gateway=MEMBERS[3]),), head=Member(position=0, gateway=MEMBERS[0]),
            last_latency_ms=12.5,
        )
        for n in range(3)
    )  # fmt: skip
    service.now = Status(2, rings, 8, 7)
    page = await get(app, "/api/v1/rings", limit=2)
    assert [r["ring"] for r in page["items"]] == [0, 1]
    assert page["items"][0]["missing"] == [{"position": 3, "gateway": MEMBERS[3]}]
    assert page["items"][0]["last_latency_ms"] == 12.5
    assert [r["ring"] for r in (await get(app, "/api/v1/rings", offset=page["next"]))["items"]] == [2]
    assert (await get(app, "/api/v1/rings", area="elsewhere"))["items"] == []


async def test_reports(app: FastAPI, store: Store) -> None:
    said = [
        StoredReport(
            MEMBERS[n], MEMBERS[n + 1], misbehaviour, area, 1, 7, 0, 5, 1_772_582_400_000, 1_772_582_400_000 + n
        )
        for n, (misbehaviour, area) in enumerate(
            [("wrong_seed", "Nordring"), ("corrupt_sum", "south"), ("bad_deal", "Nordring")]
        )
    ]
    store.misbehaviour.write(said, 1_772_582_400_000)
    page = await get(app, "/api/v1/misbehaviour-reports", limit=2)
    assert [each["misbehaviour"] for each in page["items"]] == ["bad_deal", "corrupt_sum"]
    assert page["items"][0] == {
        "reporter": MEMBERS[2], "reported": MEMBERS[3], "misbehaviour": "bad_deal", "area": "Nordring",
        "epochs": 1, "epoch": 7, "ring": 0, "round": 5, "first_at": "2026-03-04T00:00:00Z",
        "last_at": "2026-03-04T00:00:00.002000Z",
    }  # fmt: skip
    rest = await get(app, "/api/v1/misbehaviour-reports", limit=2, cursor=page["next"])
    assert ([each["misbehaviour"] for each in rest["items"]], rest["next"]) == (["wrong_seed"], None)
    assert len((await get(app, "/api/v1/misbehaviour-reports", area="Nordring"))["items"]) == 2
    assert [e["reported"] for e in (await get(app, "/api/v1/misbehaviour-reports", reporter=MEMBERS[1]))["items"]] == [
        MEMBERS[2]
    ]
    assert [e["reporter"] for e in (await get(app, "/api/v1/misbehaviour-reports", reported=MEMBERS[1]))["items"]] == [
        MEMBERS[0]
    ]
    async with client_of(app) as client:
        assert (await client.get("/api/v1/misbehaviour-reports?cursor=yesterday")).json()["reason"] == "cursor"


@pytest.mark.parametrize(
    ("path", "name", "said"),
    [
        ("/api/v1/totals?from=2026-03-04T00:00:00&to=2026-03-05T00:00:00Z", "from", "timezone"),
        ("/api/v1/totals?to=2026-03-05T00:00:00Z", "from", "required"),
        ("/api/v1/rounds?limit=0", "limit", "greater than or equal to 1"),
        ("/api/v1/rounds?outcome=lost", "outcome", "'opened' or 'void'"),
        ("/api/v1/rings?offset=-1", "offset", "greater than or equal to 0"),
    ],
)
async def test_invalid_input_is_explained(app: FastAPI, path: str, name: str, said: str) -> None:
    async with client_of(app) as client:
        answer = await client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    problem = answer.json()
    assert said in problem["fields"][name].lower() or said in problem["fields"][name]
    assert problem["reason"] == "invalid_input"


async def test_other_problems(app: FastAPI) -> None:
    async with client_of(app) as client:
        cursor = await client.get("/api/v1/rounds?cursor=yesterday")
        absent = await client.get("/api/v1/readings")
        method = await client.delete("/api/v1/rings")
        asset = await client.get("/assets/0/plotly.min.js")
        enrol = await client.post("/api/v1/enrol", json={})
    assert (cursor.status_code, cursor.json()["reason"]) == (422, "cursor")
    assert {a.headers["content-type"] for a in (absent, method, asset)} == {"application/problem+json"}
    assert [a.status_code for a in (absent, method, asset, enrol)] == [404, 405, 404, 404]


async def test_every_answer_has_the_security_headers(app: FastAPI) -> None:
    async with client_of(app) as client:
        for path in ("/", "/api/v1/rings", "/metrics", "/nowhere", "/healthz"):
            answer = await client.get(path)
            assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
            assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_openapi_document(app: FastAPI) -> None:
    document = await get(app, "/api/v1/openapi.json")
    OpenAPI.model_validate(document)
    operations = [op for path in document["paths"].values() for op in path.values()]
    assert sorted(op["operationId"] for op in operations) == [
        "gateways",
        "log_entries",
        "log_head",
        "misbehaviour_reports",
        "rings",
        "rounds",
        "totals",
    ]
    schemas = document["components"]["schemas"]

    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            here = {node["$ref"]} if "$ref" in node else set()
            return here.union(*map(references, node.values()))
        return set().union(*map(references, node)) if isinstance(node, list) else set()

    assert references(document) <= {f"#/components/schemas/{name}" for name in schemas}
    assert all(op["description"] for op in operations)
    assert "HTTPValidationError" not in schemas


async def test_health_and_metrics(app: FastAPI, service: Service) -> None:
    async with client_of(app) as client:
        assert (await client.get("/healthz")).text == "ok\n"
        assert (await client.get("/readyz")).status_code == 200
        service.reason = "the database does not answer"
        not_ready = await client.get("/readyz")
        metrics = await client.get("/metrics")
    assert (not_ready.status_code, not_ready.text) == (503, "the database does not answer\n")
    assert 'stromkreis_rounds_total{outcome="opened"} 0.0' in metrics.text
    assert metrics.headers["content-type"].startswith("text/plain")


async def test_gateways_and_enrolment_over_tls(
    tmp_path: Path, store: Store, service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("coordinator.web.certificates.REFUSAL_S", 0.2)
    home = tmp_path / "pki"
    authority = CertificateAuthority.create(home, datetime.now(UTC), hosts=["127.0.0.1"])
    publisher = RevocationPublisher(home, authority, store.certificates)
    enrolment = Enrolment(
        store.gateways,
        authority,
        publisher,
        coordinator_curve_key=b"c" * 32,
        list_key=b"l" * 32,
        log_key=b"k" * 32,
        endpoint="tcp://127.0.0.1:5555",
    )
    metrics = CoordinatorMetrics(CollectorRegistry())
    app = make_app(store, service, metrics, enrolment=enrolment)
    token = Directory(store.gateways).create_token(datetime.now(UTC))
    keys = [KEY, *(ec.generate_private_key(pki.CURVE()) for _ in range(2))]
    first, second, third = (pki.build_request(each, MEMBERS[1]) for each in keys)
    package = base64.b64encode(pki.build_package((first, second, third))).decode()
    body = {"token": token, "gateway": MEMBERS[1], "area": "Nordring", "request_package": package,
            "curve_public_key": "ab" * 32}  # fmt: skip
    context = client_context(home / ca.ROOT_FILE)
    async with trio.open_nursery() as nursery:
        files = {"certificate": home / ca.TLS_CHAIN_FILE, "private_key": home / ca.TLS_KEY_FILE}

        async def start(*, task_status: trio.TaskStatus[list[str]]) -> None:
            listen = ["http://127.0.0.1:0", "https://127.0.0.1:0"]
            await serve(app, listen, **files, task_status=task_status)

        secure, plain = await nursery.start(start)
        async with httpx.AsyncClient(verify=context) as client:
            refused = await client.post(f"{plain}/api/v1/enrol", json=body)
            assert (refused.status_code, refused.json()["reason"]) == (403, "https_required")
            for _ in range(3):
                guess = await client.post(f"{secure}/api/v1/enrol", json={**body, "token": "stk_guess"})
                assert (guess.status_code, guess.json()["reason"]) == (403, "token_unknown")
                assert guess.elapsed.total_seconds() >= 0.2
            invalid = await client.post(f"{secure}/api/v1/enrol", json={**body, "curve_public_key": "AB"})
            assert invalid.status_code == 422
            assert list(invalid.json()["fields"]) == ["curve_public_key"]
            assert token not in invalid.text
            huge = await client.post(f"{secure}/api/v1/enrol", json={**body, "area": "x" * 40_000})
            assert huge.status_code == 413
            enrolled = await client.post(f"{secure}/api/v1/enrol", json=body)
            assert enrolled.status_code == 201, enrolled.text
            stolen = {**body, "curve_public_key": "cd" * 32}
            duplicate = await client.post(f"{secure}/api/v1/enrol", json=stolen)
            assert (duplicate.status_code, duplicate.json()["reason"]) == (409, "duplicate_gateway")
            page = (await client.get(f"{plain}/api/v1/gateways")).json()
            lists = await client.get(f"{secure}/api/v1/revocation-lists")
            nobody = {"gateway": MEMBERS[0], "request_package": package, "endorsement": "MAA="}
            unknown = await client.post(f"{secure}/api/v1/renew", json=nobody)
            assert (unknown.status_code, unknown.json()["reason"]) == (404, "gateway_unknown")
            early = await client.post(f"{secure}/api/v1/renew", json={**nobody, "gateway": MEMBERS[1]})
            assert (early.status_code, early.json()["reason"]) == (422, "cms_malformed")
            odd = await client.post(f"{secure}/api/v1/renew", json={**nobody, "request_package": "###"})
            assert (odd.status_code, odd.json()["reason"]) == (422, "request_malformed")
        for _ in range(4):
            with pytest.raises(httpx.ConnectError):
                async with httpx.AsyncClient(verify=ssl.create_default_context()) as stranger:
                    await stranger.get(f"{secure}/healthz")
        nursery.cancel_scope.cancel()
    answer = enrolled.json()
    leaf, *above = x509.load_pem_x509_certificates(answer["certificate_chain"].encode())
    found = pki.RevocationLists()
    assert found.take(pki.load_revocation_bundle(lists.content, authority.root, datetime.now(UTC)))
    pki.verify_chain(leaf, above, authority.root, datetime.now(UTC), revocations=found)
    assert (answer["coordinator_curve_key"], answer["endpoint"]) == ((b"c" * 32).hex(), "tcp://127.0.0.1:5555")
    (gateway,) = page["items"]
    assert (gateway["id"], gateway["area"], gateway["status"]) == (MEMBERS[1], "Nordring", "active")
    assert metrics.registry.get_sample_value("stromkreis_enrolments_total", {"outcome": "refused"}) == 4
    assert metrics.registry.get_sample_value("stromkreis_enrolments_total", {"outcome": "enrolled"}) == 1
    lines = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert lines == [
        "enrolment from 127.0.0.1 is refused: token_unknown: no such enrolment token",
        "a TLS handshake failed (NO_SHARED_CIPHER)",
    ], "one line each, however often"
    assert "Traceback" not in caplog.text
    assert "stk_" not in caplog.text


@pytest.mark.parametrize("number", [2**31, 2**63, 10**40, -1])
async def test_no_number_is_too_large_for_an_answer(app: FastAPI, store: Store, number: int) -> None:
    paths = (
        f"rounds?epoch={number}", f"rounds?ring={number}", f"rounds?limit={number}", f"rings?offset={number}",
        f"rings?limit={number}", f"gateways?limit={number}", f"misbehaviour-reports?limit={number}",
        f"rounds?cursor={number}-{number}-{number}", f"totals?from=2026-03-04T00:00:00Z&to={number}",
        f"totals?from={number}&to={number}", "totals?from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z",
        f"misbehaviour-reports?cursor={number}-ESTK0100000001-ESTK0100000002-bad_deal",
        "rounds?cursor=999999999999999999-999999999-999999999",
    )  # fmt: skip
    async with client_of(app) as client:
        for path in paths:
            answer = await client.get(f"/api/v1/{path}")
            assert answer.status_code in {200, 422}, (path, answer.text)


async def test_https_needs_a_certificate(app: FastAPI) -> None:
    with pytest.raises(LocalProtocolError, match="certificate"):
        await serve(app, ["https://127.0.0.1:0"])


async def test_the_event_stream_tells_revisions(app: FastAPI, service: Service) -> None:
    async with trio.open_nursery() as nursery:
        address = (await nursery.start(serve, app, ["http://127.0.0.1:0"]))[0]
        async with await trio.open_tcp_stream("127.0.0.1", int(address.rsplit(":", 1)[1])) as stream:
            await stream.send_all(b"GET /dashboard/events HTTP/1.1\r\nHost: coordinator\r\n\r\n")
            seen, data = 0, b""
            while seen < 3:
                data += await stream.receive_some()
                if data.count(b"data: ") > seen:
                    seen += 1
                    service.turn()
        nursery.cancel_scope.cancel()
    assert b"content-type: text/event-stream" in data
    assert re.findall(rb"event: revision\ndata: (\d+)\n\n", data) == [b"1", b"2", b"3"]


async def test_a_body_that_never_ends_is_given_up(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reaches the port could hold connections open else, until the gateways find none."""
    monkeypatch.setattr("coordinator.web.errors.BODY_S", 0.3)
    async with trio.open_nursery() as nursery:
        address = (await nursery.start(serve, app, ["http://127.0.0.1:0"]))[0]
        async with await trio.open_tcp_stream("127.0.0.1", int(address.rsplit(":", 1)[1])) as stream:
            await stream.send_all(b"POST /slow HTTP/1.1\r\nHost: coordinator\r\nContent-Length: 500\r\n\r\n{")
            with trio.fail_after(120):
                data = b""
                while part := await stream.receive_some():
                    data += part
        nursery.cancel_scope.cancel()
    assert data.startswith(b"HTTP/1.1 408 ")


async def test_viewers_are_bounded(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio.open_nursery() as nursery:
        address = (await nursery.start(serve, app, ["http://127.0.0.1:0"]))[0]
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=address, limits=limits) as client, AsyncExitStack() as viewers:
            for _ in range(dashboard.VIEWERS_MAX):
                answer = await viewers.enter_async_context(client.stream("GET", "/dashboard/events"))
                assert answer.status_code == 200
            assert (await client.get("/dashboard/events")).status_code == 503
            assert (await client.get("/healthz")).status_code == 200
            await viewers.aclose()
            with trio.fail_after(120):
                while True:
                    async with client.stream("GET", "/dashboard/events") as again:
                        if again.status_code == 200:
                            break
        nursery.cancel_scope.cancel()


async def test_a_viewer_that_does_not_read_cannot_keep_the_server_up(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "STALL_S", 0.3)
    path = f"/assets/{dashboard._tag('plotly.min.js')}/plotly.min.js"
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            address = (await nursery.start(serve, app, ["http://127.0.0.1:0"]))[0]
            viewer = trio.socket.socket()
            viewer.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
            await viewer.connect(("127.0.0.1", int(address.rsplit(":", 1)[1])))
            await viewer.send(f"GET {path} HTTP/1.1\r\nHost: coordinator\r\n\r\n".encode())
            read = 0
            while read < 20_000:  # well within the body, which is one write and larger than all buffers
                read += len(await viewer.recv(4096))
            nursery.cancel_scope.cancel()
        viewer.close()


async def test_a_void_interval_has_no_value_and_says_who_is_enrolled(app: FastAPI, store: Store) -> None:
    store.rounds.record_many([ended(0, 0, **VOID), ended(1, 0, **VOID), ended(0, 1)], enrolled={"Nordring": 11})
    span = {"from": "2026-03-04T00:00:00Z", "to": "2026-03-05T00:00:00Z"}
    void, partial = (await get(app, "/api/v1/totals", area="Nordring", **span))["items"]
    assert [value["value"] for value in void["values"]] == [None] * 4
    assert (void["final"], void["complete"], void["verified"]) == (True, False, False)
    assert void["gateways"] == {"enrolled": 11, "members": 8, "present": 0}
    assert partial["values"][0]["value"] == "3"
    assert (await get(app, "/dashboard/data"))["series"]["enrolled"] == [11]


async def test_a_total_says_what_must_be_known_beside_it(store: Store, service: Service) -> None:
    app = make_app(store, service, CoordinatorMetrics(CollectorRegistry()), time_lapse=True)
    full: dict[str, Any] = {"roster": 0b1111, "total": (4, 1, 1, 1)}
    rounds = [ended(ring, 0, **full) for ring in (0, 1)]  # nobody is missing
    rounds += [ended(0, 1, **full), ended(1, 1, **VOID)]  # a ring's round is void
    rounds += [ended(ring, round_, **full) for round_ in (2, 17, 18) for ring in (0, 1)]
    store.rounds.record_many(rounds, enrolled={"Nordring": 8})
    span = {"from": "2026-03-04T00:00:00Z", "to": "2026-03-05T00:00:00Z"}
    items = (await get(app, "/api/v1/totals", area="Nordring", **span))["items"]
    always = ["time_lapse", "small_rings"]
    marks = [always, ["incomplete", *always], ["carried", *always], ["carried", *always], always]
    assert [each["marks"] for each in items] == marks
    assert (await get(app, "/dashboard/data"))["series"]["marks"] == marks
    one = (await get(app, "/api/v1/totals", **(span | {"from": items[2]["interval_start"]})))["items"]
    assert [each["marks"] for each in one] == marks[2:]  # what was before the page counts as well


async def test_the_dashboards_document(app: FastAPI, store: Store) -> None:
    empty = await get(app, "/dashboard/data")
    assert (empty["series"]["start_s"], empty["latency_ms"], empty["interval_s"]) == ([], None, None)
    store.rounds.record_many([ended(0, 0), ended(1, 0, **VOID), ended(0, 1, **VOID), ended(1, 1, **VOID), ended(0, 2)])
    data = await get(app, "/dashboard/data", window="24")
    series = data["series"]
    assert series["start_s"] == [START, START + 900]  # the third is not complete yet
    assert series["energy"][0]["values"] == ["123.4", None]
    assert [(line["name"], line["feed_in"]) for line in series["energy"]] == [
        ("energy_import", False),
        ("energy_export", True),
    ]
    assert series["power"][0]["values"] == ["-50", None]
    assert (series["present"], series["members"], series["opened"]) == ([3, 0], [8, 8], [1, 0])
    assert data["rounds"] == {"opened": 1, "void": 3, "retried": 0, "unranged": 0}
    assert data["latency_ms"] == {"p50": 31.2, "p95": 31.2}


def test_quantiles_are_by_nearest_rank() -> None:
    assert dashboard._quantiles([n / 1000 for n in range(1, 101)]) == {"p50": 50.0, "p95": 95.0}
    assert dashboard._quantiles([0.004]) == {"p50": 4.0, "p95": 4.0}
    assert dashboard._quantiles([]) is None


TOKEN = "stk_op_a-token-of-the-test"
TARIFF = {
    "name": "Dynamic", "obis": "1-0:1.8.0*255", "unit": "Wh", "currency": "ct", "price_scaler": -5,
    "start": "2026-03-04T00:00:00Z", "interval_s": 900, "prices": [3000, -12],
}  # fmt: skip


@pytest.fixture
def billed(store: Store, service: Service, tmp_path: Path) -> FastAPI:
    now, metrics = datetime.now(UTC), CoordinatorMetrics(CollectorRegistry())
    authority = CertificateAuthority.create(tmp_path / "pki", now)
    billing = Billing(store, Pedersen(Edwards25519()))
    billing_service = BillingService(billing, TariffSigner(tmp_path / "pki", authority, now), metrics)
    return make_app(store, service, metrics, billing_service=billing_service, operator_token=TOKEN)


async def test_bills_want_the_operators_token_over_https(billed: FastAPI) -> None:
    guarded = [("POST", "/api/v1/tariffs"), ("POST", "/api/v1/bills"), ("GET", "/api/v1/bills")]
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    async with client_of(billed) as client:
        for method, path in guarded:
            plain = await client.request(method, path, headers=bearer, json={})
            assert (plain.status_code, plain.json()["reason"]) == (403, "https_required")
            for wrong in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {TOKEN}x"}):
                answer = await client.request(method, f"https://coordinator{path}", headers=wrong, json={})
                assert (answer.status_code, answer.json()["reason"]) == (401, "not_logged_in")
                assert TOKEN not in answer.text
        assert (await client.get("https://coordinator/api/v1/bills", headers=bearer)).json() == {
            "items": [], "next": None,
        }  # fmt: skip


async def test_totals_of_all_want_a_log_in_where_participants_get_their_own(store: Store, service: Service) -> None:
    """The https port is the one that gateways call: whoever reaches it would see what is for other participants."""
    guarded = ["/api/v1/totals", "/api/v1/rounds", "/", "/dashboard/data", "/dashboard/events"]
    span = {"from": "2026-03-04T00:00:00Z", "to": "2026-03-05T00:00:00Z"}
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    metrics = CoordinatorMetrics(CollectorRegistry())
    app = make_app(store, service, metrics, operator_token=TOKEN, has_participants=True)
    async with client_of(app) as client:
        for path in guarded:
            for wrong in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {TOKEN}x"}):
                answer = await client.get(f"https://coordinator{path}", params=span, headers=wrong)
                assert (answer.status_code, answer.json()["reason"]) == (401, "not_logged_in"), path
        for path in guarded[:-1]:  # the last one is a stream
            shown = await client.get(f"https://coordinator{path}", params=span, headers=bearer)
            operators_own = await client.get(path, params=span)
            assert (shown.status_code, operators_own.status_code) == (200, 200), path
        assert (await client.get("https://coordinator/readyz")).status_code == 200


async def test_a_tariff_is_published_for_everybody_to_see(billed: FastAPI, tmp_path: Path) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    async with client_of(billed) as client:
        made = await client.post("https://coordinator/api/v1/tariffs", headers=bearer, json=TARIFF)
        assert made.status_code == 201, made.text
        view = made.json()
        shown = (await client.get(f"/api/v1/tariffs/{view['digest']}")).json()
        listed = (await client.get("/api/v1/tariffs")).json()["items"]
        absent = await client.get(f"/api/v1/tariffs/{'0' * 64}")
        odd = await client.get("/api/v1/tariffs/yesterday")
        wrong: list[dict[str, Any]] = [
            {"prices": [1.5]}, {"prices": ["1"]}, {"prices": []}, {"name": ""}, {"start": "2026"},
        ]  # fmt: skip
        for broken in wrong:
            refused = await client.post("https://coordinator/api/v1/tariffs", headers=bearer, json=TARIFF | broken)
            assert refused.status_code == 422, refused.text
        year = await client.post(
            "https://coordinator/api/v1/tariffs", headers=bearer, json=TARIFF | {"prices": [-123456] * 35_136}
        )
        period = {"area": "Nordring", "from": "2026-03-04T00:00:00Z", "to": "2026-03-04T01:00:00Z"}
        asked = await client.post(
            "https://coordinator/api/v1/bills", headers=bearer, json=period | {"tariff": view["digest"]}
        )
    assert shown == TARIFF
    assert listed == [view]
    assert (absent.status_code, odd.status_code, year.status_code, asked.status_code) == (404, 422, 201, 409)
    document = Tariff.from_document(shown).to_bytes()
    assert tariff_digest(document).hex() == view["digest"]
    certificate = x509.load_pem_x509_certificate(view["certificate"].encode())
    sub_ca = x509.load_pem_x509_certificate((tmp_path / "pki" / ca.SUB_CA_FILE).read_bytes())
    root = x509.load_pem_x509_certificate((tmp_path / "pki" / ca.ROOT_FILE).read_bytes())
    role = pki.Role.PARTICIPANT_SIGNATURE
    verified = pki.verify_chain(certificate, [sub_ca], root, datetime.now(UTC), role=role)
    assert verified.common_name == "Stromkreis.EMT"
    verified.public_key.verify(bytes.fromhex(view["signature"]), bytes.fromhex(view["digest"]), ec.ECDSA(SHA256()))


async def test_the_openapi_document_with_bills(billed: FastAPI) -> None:
    document = await get(billed, "/api/v1/openapi.json")
    OpenAPI.model_validate(document)
    operations = {op["operationId"]: op for path in document["paths"].values() for op in path.values()}
    assert {"publish_tariff", "tariffs", "tariff", "ask_for_bills", "bills"} <= operations.keys()
    assert all(op["description"] for op in operations.values())
    assert {"401", "403", "404", "409", "422"} <= operations["ask_for_bills"]["responses"].keys()


def test_the_tariff_key_is_its_own_and_its_certificate_is_renewed_in_time(tmp_path: Path) -> None:
    now = datetime(2026, 3, 4, tzinfo=UTC)
    authority = CertificateAuthority.create(tmp_path, now)
    first = TariffSigner(tmp_path, authority, now)
    later = TariffSigner(tmp_path, authority, now + timedelta(days=300))
    renewed = TariffSigner(tmp_path, authority, now + timedelta(days=700))
    keys = [x509.load_der_x509_certificate(each.certificate).public_key() for each in (first, renewed)]
    tls = x509.load_pem_x509_certificates((tmp_path / ca.TLS_CHAIN_FILE).read_bytes())[0].public_key()
    assert later.certificate == first.certificate != renewed.certificate
    assert keys[0] == keys[1] != tls
    assert (tmp_path / "tariff.key").stat().st_mode & 0o777 == 0o600
