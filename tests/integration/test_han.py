"""The gateway's interface to its home over real HTTPS: who is let in, what each sees, what hostile clients cost."""

from __future__ import annotations

import base64
import json
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from node.han.accounts import Account, Role
from node.han.answers import canonical
from protocol import cms
from protocol.errors import RemoteProtocolError
from protocol.pki.han import HanRole, make_self_signed
from tests.integration.han_home import ANNA, BEN, GATEWAY, METERS, NOW_S, QUARTER_S, REALM, Home, consumer

_SHA256 = hashes.SHA256()
CON, SRV = "/smgw/con/v1", "/smgw/srv/v1"
NEWEST = NOW_S // QUARTER_S * QUARTER_S


def made_certificate(path: Path, role: HanRole) -> tuple[Path, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime(2020, 1, 1, tzinfo=UTC)  # out of date: for self-signed ones that does not count (4.2)
    made = make_self_signed(
        role, "technician7", key, serial=1 << 100, not_before=now, not_after=now + timedelta(days=9)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = path / f"{role.value}.pem"
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file, made


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    _, certificate = made_certificate(tmp_path, HanRole.SERVICE)
    technician = Account("tech", Role.TECHNICIAN, certificates=frozenset({certificate.fingerprint(_SHA256).hex()}))
    made = Home(
        tmp_path, (consumer(*ANNA, 0), consumer(*BEN, 1), technician),
        certificates=(certificate.public_bytes(serialization.Encoding.DER),),
    )  # fmt: skip
    with trio.fail_after(120):
        async with made.serving():
            yield made
    made.keys.close()


async def get(home: Home, path: str, login: tuple[str, str] | None = ANNA, **more: Any) -> httpx.Response:
    async with home.client(login, **more) as client:
        return await client.get(path)


async def test_who_does_not_log_in_gets_two_challenges_and_nothing_else(home: Home) -> None:
    answer = await get(home, f"{CON}/rts/", None)
    assert answer.status_code == 401
    challenges = answer.headers.get_list("www-authenticate")
    assert [each.split("algorithm=")[1].split(",")[0] for each in challenges] == ["SHA-256", "MD5"]
    assert all(f'realm="{REALM}"' in each and 'opaque="' in each and 'qop="auth"' in each for each in challenges)
    assert answer.json()["reason"] == "log_in"


async def test_a_consumer_sees_its_own_meter_and_not_the_neighbours(home: Home) -> None:
    assert (await get(home, f"{CON}/rts/Meter/")).json() == [f"{CON}/rts/Meter/{METERS[0]}"]
    assert (await get(home, f"{CON}/rts/Meter/", BEN)).json() == [f"{CON}/rts/Meter/{METERS[1]}"]
    own = await get(home, f"{CON}/rts/Reading/{METERS[0]}")
    assert [each["value"] for each in own.json()["values"]] == ["1009600", "144228"]
    for path in (
        f"rts/Reading/{METERS[1]}",
        f"exp/Reading/{METERS[1]}",
        f"exp/Interval/{METERS[1]}",
        "rts/Contract/ben",
    ):
        assert (await get(home, f"{CON}/{path}")).status_code == 404


async def test_lists_go_down_one_level_at_a_time(home: Home) -> None:
    assert (await get(home, "/smgw/")).json() == [f"{CON}/"]
    assert (await get(home, f"{CON}/")).json() == [f"{CON}/rts/", f"{CON}/fas/", f"{CON}/exp/"]
    assert f"{CON}/rts/Reading/" in (await get(home, f"{CON}/rts/")).json()
    assert (await get(home, f"{CON}/fas/")).json() == [f"{CON}/fas/SelfTest", f"{CON}/fas/SetPassword"]
    assert (await get(home, f"{CON}/exp/")).json() == [
        f"{CON}/exp/{each}/" for each in ("Reading", "Interval", "ArFile", "ConsumerLog")
    ]


async def test_each_resource_that_is_listed_can_be_read(home: Home) -> None:
    async with home.client() as client:
        for tree in ("rts", "exp"):
            for kind in (await client.get(f"{CON}/{tree}/")).json():
                for uri in (await client.get(kind)).json():
                    answer = await client.get(uri)
                    assert (uri, answer.status_code) == (uri, 200)
                    assert answer.headers["content-type"] == "application/json"


async def test_times_include_the_start_and_exclude_the_end(home: Home) -> None:
    first, last = (datetime.fromtimestamp(NEWEST - count * QUARTER_S, UTC).isoformat() for count in (4, 1))
    query = f"q.fromtime={first.replace('+', '%2B')}&q.totime={last.replace('+', '%2B')}&q.obis=1-0:1.8.0"
    answer = await get(home, f"{CON}/exp/Reading/{METERS[0]}?{query}")
    records = answer.json()["data"]["records"]
    assert [each["value"] for each in records] == ["1009400", "1009450", "1009500"]
    assert answer.json()["type"] == "Reading"
    assert len((await get(home, f"{CON}/exp/Reading/{METERS[0]}?q.count=5")).json()["data"]["records"]) == 5


async def test_energy_of_the_last_day_adds_up_to_the_register(home: Home) -> None:
    answer = await get(home, f"{CON}/exp/Interval/{METERS[0]}?q.obis=1-0:1.8.0")
    records = answer.json()["data"]["records"]
    assert len(records) == 96
    assert sum(int(each["energy"]) for each in records) == 96 * 50
    assert all(each["is_valid"] for each in records)


async def test_a_signed_export_holds_and_a_changed_one_does_not(home: Home) -> None:
    answer = await get(home, f"{CON}/exp/Reading/{METERS[0]}?q.signed=CMS_ECDSA_SHA256_Detached")
    text = answer.content
    data = text[text.index(b'"data":') + 7 : text.index(b',"signature":')]
    signature = answer.json()["signature"]
    assert signature["algorithm"] == "CMS_ECDSA_SHA256_Detached"
    certificate = x509.load_der_x509_certificate(home.module.certificates[0])
    limits = cms.Limits()
    pretty = json.dumps(json.loads(data), indent="\t").encode()
    message = base64.b64decode(signature["value"])
    cms.verify_detached(message, canonical(pretty), [certificate], limits)
    with pytest.raises(RemoteProtocolError, match="cms_signature"):
        cms.verify_detached(message, data.replace(b"10096", b"10097"), [certificate], limits)


async def test_a_spreadsheet_gets_lines_of_values(home: Home) -> None:
    answer = await get(home, f"{CON}/exp/Interval/{METERS[0]}", headers={"Accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv"
    lines = answer.text.split("\r\n")
    assert lines[0] == "obis,start,end,energy,scaler,unit,is_valid"
    assert len(lines) == 2 * 96 + 2


async def test_a_technician_finds_state_and_no_reading(home: Home, tmp_path: Path) -> None:
    planted = ("10096", "144228", "10096000")
    async with home.client(None, chain=tmp_path / "srv.pem") as client:
        assert (await client.get("/smgw/")).json() == [f"{SRV}/"]
        texts = []
        for tree in ("rts", "exp", "fas"):
            for kind in (await client.get(f"{SRV}/{tree}/")).json():
                for uri in (await client.get(kind)).json() if tree != "fas" else ():
                    answer = await client.get(uri)
                    assert (uri, answer.status_code) == (uri, 200)
                    texts.append(answer.text)
        tested = await client.post(f"{SRV}/fas/SelfTest")
        assert tested.status_code == 200
        texts.append(tested.text)
        assert len(texts) > 7
        assert not [each for each in texts for value in planted if value in each]
        for path in ("rts/Reading/", f"rts/Reading/{METERS[0]}", f"exp/Reading/{METERS[0]}", "exp/ConsumerLog/anna"):
            assert (await client.get(f"{SRV}/{path}")).status_code == 404
        assert (await client.get(f"{CON}/rts/Reading/{METERS[0]}")).status_code == 403
        assert (await client.get("/")).status_code == 403
    assert (await get(home, f"{SRV}/rts/Network/{REALM}")).status_code == 403


async def test_a_consumer_logs_in_by_certificate_and_sees_its_own(tmp_path: Path) -> None:
    """HKS.WS1, and HKS.WS2 beside it."""
    file, certificate = made_certificate(tmp_path, HanRole.CONSUMER)
    anna = replace(consumer(*ANNA, 0), certificates=frozenset({certificate.fingerprint(_SHA256).hex()}), first={})
    shown = (certificate.public_bytes(serialization.Encoding.DER),)
    made = Home(tmp_path, (anna, consumer(*BEN, 1)), certificates=shown)
    with trio.fail_after(120):
        async with made.serving():
            async with made.client(None, chain=file) as client:
                assert (await client.get(f"{CON}/rts/Reading/")).json() == [f"{CON}/rts/Reading/{METERS[0]}"]
                assert (await client.get(f"{CON}/rts/Reading/{METERS[1]}")).status_code == 404
                assert (await client.get(f"{SRV}/rts/")).status_code == 403
            assert (await get(made, f"{CON}/rts/Reading/", None)).status_code == 401
            assert (await get(made, f"{CON}/rts/Reading/", BEN)).json() == [f"{CON}/rts/Reading/{METERS[1]}"]
    made.keys.close()


async def test_a_certificate_of_nobody_does_not_pass_the_handshake(home: Home, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    file, _ = made_certificate(tmp_path / "other", HanRole.SERVICE)
    with pytest.raises((httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError)):
        await get(home, "/smgw/", None, chain=file)


async def test_wrong_passwords_wait_longer_and_nobody_is_locked_out(home: Home) -> None:
    async with home.client() as session:  # logged in before
        assert (await session.get("/smgw/")).status_code == 200
        answers = [await get(home, "/smgw/", ("anna", "wrong")) for _ in range(5)]
        assert [each.status_code for each in answers[:3]] == [401, 401, 401]
        assert answers[-1].status_code == 403
        said = answers[-1].json()
        assert said["reason"] == "too_many_failed_logins"
        assert int(said["retry_after_s"]) >= 1
        assert datetime.fromisoformat(said["retry_at"]).timestamp() >= NOW_S
        assert (await session.get("/smgw/")).status_code == 200  # a session goes on
        assert (await get(home, "/smgw/", BEN)).status_code == 200
        await trio.sleep(int(said["retry_after_s"]) + 0.2)
    assert (await get(home, "/smgw/")).status_code == 200


async def test_another_password_counts_at_once_and_ends_sessions(home: Home) -> None:
    async with home.client() as client:
        short = await client.post(f"{CON}/fas/SetPassword", json={"password": "short"})
        assert (short.status_code, short.json()["reason"]) == (422, "bad_password")
        assert (await client.post(f"{CON}/fas/SetPassword", json={"password": "a longer one 3"})).status_code == 204
        assert (await client.get("/smgw/")).status_code == 401
    assert (await get(home, "/smgw/", ("anna", "a longer one 3"))).status_code == 200
    assert (await get(home, "/smgw/", BEN)).status_code == 200
    assert b"a longer one 3" not in b"".join(each.read_bytes() for each in home.path.glob("registers*"))


async def test_status_codes_say_what_was_wrong(home: Home) -> None:
    async with home.client() as client:

        async def status(method: str, path: str, **more: Any) -> tuple[int, str]:
            answer = await client.request(method, path, **more)
            return answer.status_code, answer.json()["reason"]

        reading = f"{CON}/exp/Reading/{METERS[0]}"
        assert await status("GET", f"{CON}/rts/reading/{METERS[0]}") == (404, "not_there")  # case matters
        assert await status("PUT", reading, content=b"{}") == (405, "wrong_method")
        assert await status("DELETE", reading) == (405, "wrong_method")
        assert await status("PATCH", reading) == (405, "wrong_method")
        assert await status("GET", reading, headers={"Accept": "application/xml"}) == (406, "not_acceptable")
        for query in ("q.obis=1.8.0", "q.count=x", "q.level=I", "q.fromtime=yesterday", "q.signed=RSA", "q.count", "a"):
            assert await status("GET", f"{reading}?{query}") == (400, "bad_query")
        set_password = f"{CON}/fas/SetPassword"
        assert await status("POST", set_password, content=b"{}", headers={"Content-Type": "text/plain"}) == (
            415, "content_type",
        )  # fmt: skip
        broken = await client.post(
            set_password, content=b'{"password": 7', headers={"Content-Type": "application/json"}
        )
        assert broken.status_code == 422
        assert await status("POST", set_password, content=bytes(70_000)) == (413, "body_size")
        assert await status("GET", "/smgw/", headers={"X-Long": "a" * 5000}) == (431, "header_size")
        assert (
            await client.get("/smgw/", headers={"X-Many": "a" * 230} | {f"X-{n}": "b" * 240 for n in range(30)})
        ).status_code == 200
        assert (await client.get("/smgw/", headers={f"X-{n}": "b" * 3000 for n in range(8)})).status_code == 431


async def test_header_names_count_whatever_their_case(home: Home) -> None:
    async with home.client() as client:
        path = f"{CON}/exp/Interval/{METERS[0]}"
        assert (await client.get(path, headers={"aCCePT": "text/csv"})).headers["content-type"] == "text/csv"


async def test_answers_have_few_headers(home: Home) -> None:
    names = set((await get(home, f"{CON}/rts/")).headers)
    assert names == {"content-length", "content-type", "cache-control"}
    assert set((await get(home, f"{CON}/rts/", None)).headers) == names | {"www-authenticate"}


def plain_tls(home: Home) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = home.address.removeprefix("https://").rpartition(":")
    plain = socket.create_connection((host, int(port)), timeout=20)
    try:
        return context.wrap_socket(plain)
    except OSError:
        plain.close()
        raise


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle connections stay, however long a busy machine takes."""
    monkeypatch.setattr("node.han.server.IDLE_S", 600)


@pytest.mark.usefixtures("patient")
async def test_connections_are_counted_and_the_others_stay_served(home: Home) -> None:
    opened = [await trio.to_thread.run_sync(plain_tls, home) for _ in range(15)]
    assert home.server is not None
    try:
        assert (await get(home, "/smgw/")).status_code == 200  # the sixteenth of this address
        await until_count(home, 15)
        opened.append(await trio.to_thread.run_sync(plain_tls, home))
        with pytest.raises(OSError):  # noqa: PT011 - closed in the handshake, or reset before it
            await trio.to_thread.run_sync(plain_tls, home)
    finally:
        for each in opened:
            each.close()
    await until_count(home, 0)
    assert (await get(home, "/smgw/")).status_code == 200


async def until_count(home: Home, count: int) -> None:
    assert home.server is not None
    with trio.fail_after(120):
        while home.server.limit.count != count:
            await trio.sleep(0.05)


async def test_a_request_that_is_no_http_is_refused(home: Home) -> None:
    def ask(text: bytes) -> bytes:
        with plain_tls(home) as secure:
            secure.sendall(text)
            return secure.recv(4096)

    for text in (b"GET /smgw/ FTP/7\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"):
        assert (await trio.to_thread.run_sync(ask, text)).startswith(b"HTTP/1.1 400")
    no_length = b"POST /smgw/con/v1/fas/SelfTest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert (await trio.to_thread.run_sync(ask, no_length)).startswith(b"HTTP/1.1 401")  # log-in comes before a body


async def test_the_same_certificate_comes_back_after_a_restart(tmp_path: Path) -> None:
    home = Home(tmp_path, (consumer(*ANNA, 0),))
    found = []
    for _ in range(2):
        async with home.serving(days=0), home.client() as client:
            answer = await client.get(f"{CON}/rts/Certificate/han")
            found.append(answer.json()["sha256"])
            assert answer.json()["subject"].startswith("2.5.4.5=1,CN=" + GATEWAY.lower() + ".smgw")
    assert found[0] == found[1]
    home.keys.close()
