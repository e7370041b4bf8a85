"""Log-in at a real OpenID provider (oidc-provider-mock) on loopback: roles by claims, and everything else refused."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import trio
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey
from prometheus_client import CollectorRegistry
from pydantic import SecretStr, ValidationError
from typer.testing import CliRunner

from coordinator.gwa.oidc_provider import ASKED_MAX, OidcProvider, PendingLogIn
from coordinator.metrics import CoordinatorMetrics
from coordinator.oidc_config import OidcConfig
from coordinator.web.app import make_app
from loadtest.network import Network
from loadtest.ports import free_port
from protocol.errors import RemoteProtocolError
from stromkreis.__main__ import build
from stromkreis.oidc_log_in import code_from_browser
from tests.integration.gwa_world import HEADERS, TOKEN, World, client_of, world_in

CALLBACK = "http://127.0.0.1:7/callback"
USERS = {
    "1": {"preferred_username": "Vera", "groups": ["staff", "grid-viewers"]},
    "2": {"preferred_username": "olaf", "groups": ["grid-viewers", "grid-operators"]},
    "3": {"preferred_username": "nina", "groups": ["staff"]},
    "4": {"preferred_username": "local", "groups": ["grid-admins"]},
    "5": {"preferred_username": "not a name", "groups": ["grid-admins"]},
}
ROLES: Any = {"grid-viewers": "viewer", "grid-operators": "operator", "grid-admins": "administrator"}


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The provider, as a process of its own: software that nobody here wrote."""
    port = free_port()
    users = [word for sub, claims in USERS.items() for word in ("--user-claims", json.dumps({"sub": sub, **claims}))]
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), "--require-nonce", "true", *users]
    log = tmp_path_factory.mktemp("oidc") / "provider.log"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as provider:
        try:
            deadline_s = time.monotonic() + 120
            while not _answers(f"http://127.0.0.1:{port}/"):
                assert provider.poll() is None, log.read_text()
                assert time.monotonic() < deadline_s, log.read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            provider.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def config(issuer: str, **changed: Any) -> OidcConfig:
    values: dict[str, Any] = {
        "issuer": issuer,
        "client_id": "stromkreis",
        "client_secret": SecretStr("s"),
        "roles": ROLES,
    }
    values |= changed
    return OidcConfig(**values)


@asynccontextmanager
async def coordinator(tmp_path: Path, settings: OidcConfig) -> AsyncIterator[tuple[World, httpx.AsyncClient]]:
    """One whose accounts may log in at the provider."""
    async with world_in(tmp_path) as world:
        metrics = CoordinatorMetrics(CollectorRegistry())
        world.app = make_app(
            world.coordinator, Any, metrics, profiles=world.rollout, operator_token=TOKEN, oidc=settings,  # type: ignore[arg-type]
        )  # fmt: skip
        async with client_of(world) as client:
            yield world, client


def authorised(url: str, sub: str) -> dict[str, str]:
    """What the browser of somebody who logs in at the provider brings back."""
    answer = httpx.post(url, data={"sub": sub}, timeout=120)
    assert answer.status_code == 302, answer.text
    assert answer.headers["Location"].startswith(CALLBACK)
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["Location"]).query).items()}


async def begin(client: httpx.AsyncClient) -> dict[str, str]:
    answer = await client.post("/api/v1/oidc/log-ins", json={"redirect_uri": CALLBACK})
    assert answer.status_code == 201, answer.text
    begun: dict[str, str] = answer.json()
    return begun


async def log_in(client: httpx.AsyncClient, sub: str) -> httpx.Response:
    begun = await begin(client)
    brought = await trio.to_thread.run_sync(authorised, begun["url"], sub)
    assert brought["state"] == begun["state"]
    return await finished(client, begun, brought["code"])


async def finished(client: httpx.AsyncClient, begun: dict[str, str], code: str) -> httpx.Response:
    body = {"state": begun["state"], "secret": begun["secret"], "code": code}
    return await client.post("/api/v1/oidc/sessions", json=body)


def set_user(issuer: str, sub: str, claims: dict[str, Any]) -> None:
    assert httpx.put(f"{issuer}/users/{sub}", json=claims, timeout=120).is_success


async def test_the_role_is_what_the_claims_stand_for(tmp_path: Path, issuer: str) -> None:
    async with coordinator(tmp_path, config(issuer)) as (world, client):
        vera, olaf = await log_in(client, "1"), await log_in(client, "2")
        vera_s, olaf_s = vera.json(), olaf.json()
        assert (vera_s["name"], vera_s["role"]) == ("vera", "viewer")
        assert (olaf_s["name"], olaf_s["role"]) == ("olaf", "operator")
        for session, status in ((vera_s, 403), (olaf_s, 404)):
            headers = {"Authorization": f"Bearer {session['token']}"}
            assert (await client.get("/api/v1/profile-sets", headers=headers)).status_code == 200
            assert (await client.get("/api/v1/profile-sets/x", headers=headers)).status_code == status
        found = (await client.get("/api/v1/accounts", headers=HEADERS)).json()["items"]
        assert [(each["name"], each["is_external"]) for each in found] == [("olaf", True), ("vera", True)]
        noted = [(entry.account, entry.action, entry.subject) for entry, _ in world.coordinator.audit.page(0, 100)]
        assert noted[:2] == [("vera", "log_in", "OIDC"), ("olaf", "log_in", "OIDC")]


async def test_who_has_no_role_or_a_name_of_another_gets_in_nowhere(tmp_path: Path, issuer: str) -> None:
    async with coordinator(tmp_path, config(issuer)) as (world, client):
        body = {"name": "local", "role": "viewer", "password": "correct horse battery"}
        await client.post("/api/v1/accounts", json=body, headers=HEADERS)
        answers = [await log_in(client, sub) for sub in ("3", "4", "5")]
        assert [(each.status_code, each.json()["reason"]) for each in answers] == [
            (403, "role_unmapped"), (409, "account_known"), (403, "oidc_claims"),
        ]  # fmt: skip
        assert [each.name for each in world.coordinator.accounts.all()] == ["local"]
        assert world.coordinator.accounts.session_count() == 0
        failed = [entry.subject for entry, _ in world.coordinator.audit.page(0, 100) if entry.action == "log_in_failed"]
        assert failed == ["OIDC: role_unmapped", "OIDC: account_known", "OIDC: oidc_claims"]


async def test_another_role_or_none_at_the_provider_ends_the_sessions_before(tmp_path: Path, issuer: str) -> None:
    async with coordinator(tmp_path, config(issuer)) as (_, client):
        change = {"preferred_username": "eva", "groups": ["grid-admins"]}
        set_user(issuer, "9", change)
        first = (await log_in(client, "9")).json()
        set_user(issuer, "9", change | {"preferred_username": "renamed", "groups": ["grid-viewers"]})
        second = (await log_in(client, "9")).json()
        assert (first["role"], second["role"], second["name"]) == ("administrator", "viewer", "eva")

        async def works(session: dict[str, str]) -> bool:
            headers = {"Authorization": f"Bearer {session['token']}"}
            return (await client.get("/api/v1/profile-sets", headers=headers)).is_success

        assert [await works(each) for each in (first, second)] == [False, True]
        set_user(issuer, "9", change | {"groups": []})
        assert (await log_in(client, "9")).json()["reason"] == "role_unmapped"
        assert not await works(second)


async def test_an_account_of_the_provider_has_no_password_and_may_be_disabled(tmp_path: Path, issuer: str) -> None:
    async with coordinator(tmp_path, config(issuer)) as (_, client):
        await log_in(client, "2")
        for change in ({"role": "administrator"}, {"password": "correct horse battery"}):
            answer = await client.patch("/api/v1/accounts/olaf", json=change, headers=HEADERS)
            assert (answer.status_code, answer.json()["reason"]) == (409, "account_external")
        answer = await client.post("/api/v1/sessions", json={"name": "olaf", "password": "x"})
        assert answer.json()["reason"] == "wrong_password"
        await client.patch("/api/v1/accounts/olaf", json={"disabled": True}, headers=HEADERS)
        assert (await log_in(client, "2")).json()["reason"] == "account_disabled"


async def test_state_and_code_are_good_once_and_for_their_log_in(tmp_path: Path, issuer: str) -> None:
    async with coordinator(tmp_path, config(issuer)) as (_, client):

        async def finish(begun: dict[str, str], code: str) -> tuple[int, str]:
            answer = await finished(client, begun, code)
            return answer.status_code, answer.json().get("reason", "")

        one, two = await begin(client), await begin(client)
        brought = await trio.to_thread.run_sync(authorised, one["url"], "1")
        assert await finish(one | {"state": "x" * 43}, brought["code"]) == (403, "oidc_state")
        assert await finish(two, brought["code"]) == (403, "oidc_refused")  # the nonce is the other's
        assert await finish(one, brought["code"]) == (403, "oidc_refused")  # the provider has it spent
        assert await finish(one, brought["code"]) == (403, "oidc_state")
        asked = {name: values[0] for name, values in parse_qs(urlsplit(one["url"]).query).items()}
        assert (asked["code_challenge_method"], len(asked["code_challenge"])) == ("S256", 43)
        assert {asked["state"], asked["nonce"], asked["redirect_uri"]} >= {one["state"], CALLBACK}
        for elsewhere in (
            "https://evil.example/callback",
            "http://127.0.0.1:7/callback/../x",
            "http://127.0.0.1/callback",
        ):
            answer = await client.post("/api/v1/oidc/log-ins", json={"redirect_uri": elsewhere})
            assert (answer.status_code, answer.json()["reason"]) == (422, "redirect_uri")


async def test_the_address_that_the_browser_comes_back_to_is_not_enough(tmp_path: Path, issuer: str) -> None:
    """Another user of the machine who takes the port over, or reads the browser's history, has state and code."""
    async with coordinator(tmp_path, config(issuer)) as (_, client):
        begun = await begin(client)
        assert begun["secret"] not in begun["url"]
        brought = await trio.to_thread.run_sync(authorised, begun["url"], "1")
        answer = await finished(client, begun | {"secret": begun["state"]}, brought["code"])
        assert (answer.status_code, answer.json()["reason"]) == (403, "oidc_state")


async def test_who_fails_again_and_again_must_wait_and_fills_no_log(tmp_path: Path, issuer: str) -> None:
    async with coordinator(tmp_path, config(issuer)) as (world, client):
        reasons = []
        for _ in range(8):
            reasons.append((await finished(client, await begin(client), "guessed")).json()["reason"])
        failed = [entry for entry, _ in world.coordinator.audit.page(0, 100) if entry.action == "log_in_failed"]
        assert reasons[:3] == ["oidc_refused"] * 3
        assert "too_many_failed_logins" in reasons
        assert len(failed) == reasons.count("oidc_refused") < 8


async def test_a_provider_that_is_away_or_another_lets_nobody_in(tmp_path: Path, issuer: str) -> None:
    for number, wrong in enumerate((f"http://127.0.0.1:{free_port()}", f"{issuer}/", f"{issuer}/other")):
        async with coordinator(tmp_path / str(number), config(wrong)) as (_, client):
            answer = await client.post("/api/v1/oidc/log-ins", json={"redirect_uri": CALLBACK})
            assert (answer.status_code, answer.json()["reason"]) == (502, "oidc_provider")


ISSUER = "https://provider.example"
KEY = ECKey.generate_key("P-256", parameters={"kid": "one"})


def provider_that_issues(claims: dict[str, Any], header: dict[str, Any], key: Any) -> OidcProvider:
    """A token endpoint whose ID token is this one; its published key is KEY."""
    token = jwt.encode(header, claims, key, algorithms=[header["alg"]])
    answers = {
        "/.well-known/openid-configuration": {
            "issuer": ISSUER, "authorization_endpoint": f"{ISSUER}/a", "token_endpoint": f"{ISSUER}/t",
            "jwks_uri": f"{ISSUER}/k",
        },
        "/t": {"id_token": token, "access_token": "x", "token_type": "Bearer"},
        "/k": {"keys": [KEY.as_dict(private=False)]},
    }  # fmt: skip
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=answers[request.url.path]))
    settings = config(ISSUER)
    return OidcProvider(settings, httpx.Client(transport=transport), time.monotonic)


NOW_S = 1_800_000_000
CLAIMS = {
    "iss": ISSUER, "aud": "stromkreis", "sub": "1", "exp": NOW_S + 600, "iat": NOW_S, "nonce": "the nonce",
}  # fmt: skip
PENDING = PendingLogIn(CALLBACK, "the nonce", "verifier")


def test_a_provider_that_hangs_holds_few_threads() -> None:
    go_on, asked = threading.Event(), threading.Semaphore(0)

    def hang(request: httpx.Request) -> httpx.Response:
        asked.release()
        assert go_on.wait(120)
        return httpx.Response(503, json={})

    provider = OidcProvider(config(ISSUER), httpx.Client(transport=httpx.MockTransport(hang)), time.monotonic)
    with ThreadPoolExecutor(ASKED_MAX) as pool:
        held = [pool.submit(provider.authorization_url, PENDING, "state") for _ in range(ASKED_MAX)]
        try:
            assert all(asked.acquire(timeout=120) for _ in held)
            with pytest.raises(RemoteProtocolError, match="many log-ins wait"):
                provider.authorization_url(PENDING, "state")
        finally:
            go_on.set()
        assert all("status 503" in str(each.exception(timeout=120)) for each in held)


def test_a_connection_that_says_nothing_does_not_hold_up_the_browser() -> None:
    """Browsers open connections in advance."""
    silent: list[socket.socket] = []

    def begin(redirect_uri: str) -> tuple[str, str]:
        return "the state", redirect_uri

    def show(url: str) -> None:
        silent.append(socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)))
        follow = threading.Thread(
            target=lambda: httpx.get(f"{url}?state=the+state&code=c", timeout=120), daemon=True
        )  # fmt: skip
        follow.start()

    with ThreadPoolExecutor(1) as pool:
        brought = pool.submit(code_from_browser, begin, show, 60)
        try:
            assert brought.result(timeout=60) == ("the state", "c")
        finally:
            for each in silent:
                each.close()


def test_a_token_that_holds_gives_its_claims() -> None:
    provider = provider_that_issues(CLAIMS, {"alg": "ES256", "kid": "one"}, KEY)
    assert provider.claims(PENDING, "code", NOW_S) == CLAIMS


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://other.example"}, {"aud": "another client"}, {"aud": ["stromkreis", "another"]},
        {"nonce": "another"}, {"nonce": None}, {"exp": NOW_S - 61}, {"exp": None}, {"iat": NOW_S + 3_600},
        {"sub": None}, {"azp": "another client"}, {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
    ],
    ids=str,
)  # fmt: skip
def test_a_token_for_others_or_of_another_time_is_refused(changed: dict[str, Any]) -> None:
    claims = {name: value for name, value in (CLAIMS | changed).items() if value is not None}
    provider = provider_that_issues(claims, {"alg": "ES256", "kid": "one"}, KEY)
    with pytest.raises(RemoteProtocolError, match="oidc_refused"):
        provider.claims(PENDING, "code", NOW_S)


def test_a_token_of_another_key_or_without_a_public_key_is_refused() -> None:
    other = ECKey.generate_key("P-256", parameters={"kid": "one"})
    # What a verifier takes that lets the token choose: the public key's text as the secret of an HMAC.
    secret = OctKey.import_key(base64.b64encode(json.dumps(KEY.as_dict(private=False)).encode()))
    for header, key in (({"alg": "ES256", "kid": "one"}, other), ({"alg": "ES256", "kid": "two"}, other),
                        ({"alg": "HS256"}, secret)):  # fmt: skip
        with pytest.raises(RemoteProtocolError, match="oidc_refused"):
            provider_that_issues(CLAIMS, header, key).claims(PENDING, "code", NOW_S)


@pytest.mark.parametrize("wrong", ["http://provider.example", "ftp://x", "https://", "https://x?y=1"])
def test_an_issuer_without_https_is_no_configuration(wrong: str) -> None:
    with pytest.raises(ValidationError):
        config(wrong)


async def test_the_command_logs_in_by_a_browser(
    network: Network, issuer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Over real sockets; the browser is one that follows the provider's redirect."""

    def browser(url: str) -> bool:
        def follow() -> None:
            with suppress(httpx.HTTPError):  # the command says how it went
                httpx.post(url, data={"sub": "2"}, follow_redirects=True, timeout=120)

        threading.Thread(target=follow, daemon=True).start()
        return True

    monkeypatch.setattr(webbrowser, "open", browser)
    network.gateways = 1
    network.oidc = config(issuer)
    async with trio.open_nursery() as nursery:
        await network.start_coordinator(nursery)
        assert network.coordinator_config is not None
        data = network.coordinator_config.data_dir
        options = ["--coordinator", network.web[0], "--root", str(data / "pki/root.pem"),
                   "--token-file", str(tmp_path / "olaf.token")]  # fmt: skip

        def run(*arguments: str) -> Any:
            return CliRunner().invoke(build(["gwa"]), ["gwa", *options, *arguments])

        done = await trio.to_thread.run_sync(run, "accounts", "oidc-log-in")
        assert (done.exit_code, "olaf is logged in as operator" in done.output) == (0, True), done.output
        listed = await trio.to_thread.run_sync(run, "profiles", "status")
        assert listed.exit_code == 0, listed.output
        nursery.cancel_scope.cancel()
