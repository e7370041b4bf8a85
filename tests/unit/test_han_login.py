"""Log-in at home: digest answers, counts and nonces, delays after failures; all with a clock of the test's own."""

from __future__ import annotations

import hashlib
import json
import random
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from node.han.accounts import Account, Accounts, Contract, Role
from node.han.digest import (
    FIRST_USE_S,
    IDLE_S,
    SESSION_S,
    SESSIONS_MAX,
    Algorithm,
    DigestSessions,
    Verdict,
    make_verifier,
    parse_answer,
)
from node.han.login import Login, LoginRequest, Refusal
from protocol.errors import RemoteProtocolError
from protocol.login_throttle import DELAY_S_MAX, FORGOTTEN_S, LoginThrottle
from protocol.profiles.processing import ProcessingProfile
from protocol.profiles.profile_set import ProfileSet

REALM, USER, PASSWORD = "estk0100000001", "anna", "correct horse"
VERIFIER = make_verifier(USER, REALM, PASSWORD)


class Clock:
    """Set by the test."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Client:
    """A client of its own making: RFC 7616 from the text, by hashlib alone."""

    def __init__(self, challenge: str, user: str = USER, password: str = PASSWORD) -> None:
        self.fields = dict(re.findall(r'(\w+)=(?:"([^"]*)"|)', challenge.partition(" ")[2]))
        found = re.search(r"algorithm=([\w-]+)", challenge)
        assert found
        self.algorithm, self.user, self.password, self.count = found[1], user, password, 0

    def hash(self, text: str) -> str:
        return hashlib.new("sha256" if self.algorithm == "SHA-256" else "md5", text.encode()).hexdigest()

    def answer(self, target: str = "/smgw/", method: str = "GET", count: int | None = None, **changed: str) -> str:
        self.count = self.count + 1 if count is None else count
        nc, cnonce, nonce = f"{self.count:08x}", "0a4f113b", self.fields["nonce"]
        first = self.hash(f"{self.user}:{self.fields['realm']}:{self.password}")
        response = self.hash(f"{first}:{nonce}:{nc}:{cnonce}:auth:{self.hash(f'{method}:{target}')}")
        fields = {
            "username": f'"{self.user}"', "realm": f'"{self.fields["realm"]}"', "nonce": f'"{nonce}"',
            "uri": f'"{target}"', "algorithm": self.algorithm, "response": f'"{response}"', "qop": "auth", "nc": nc,
            "cnonce": f'"{cnonce}"', "opaque": f'"{self.fields["opaque"]}"',
        } | changed  # fmt: skip
        return "Digest " + ", ".join(f"{name}={value}" for name, value in fields.items() if value)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> DigestSessions:
    return DigestSessions(REALM, random.Random(7).randbytes, clock)


def judged(sessions: DigestSessions, header: str, target: str = "/smgw/", method: str = "GET") -> Verdict:
    return sessions.judge(parse_answer(header), method, target, VERIFIER)


# --- digest -----------------------------------------------------------------------------------------------------------


def test_the_example_of_rfc_7616_verifies_in_both_algorithms() -> None:
    # RFC 7616, section 3.9.1; the nonce is not ours, so a right answer to it is stale.
    given = {
        Algorithm.MD5: "8ca523f5e9506fed4657c9700eebdbec",
        Algorithm.SHA256: "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
    }
    realm = "http-auth@example.org"
    made = DigestSessions(realm, random.Random(1).randbytes, Clock())
    for algorithm, response in given.items():
        header = (
            f'Digest username="Mufasa", realm="{realm}", uri="/dir/index.html", algorithm={algorithm.value}, '
            'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, '
            'cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, '
            f'response="{response}", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
        )
        verifier = make_verifier("Mufasa", realm, "Circle of Life")
        assert made.judge(parse_answer(header), "GET", "/dir/index.html", verifier) is Verdict.STALE
        assert made.judge(parse_answer(header), "POST", "/dir/index.html", verifier) is Verdict.WRONG


@pytest.mark.parametrize(("which", "algorithm"), [(0, "SHA-256"), (1, "MD5")])
def test_either_challenge_can_be_answered_and_counts_up(sessions: DigestSessions, which: int, algorithm: str) -> None:
    client = Client(sessions.challenges()[which])
    assert client.algorithm == algorithm
    assert [judged(sessions, client.answer()) for _ in range(3)] == [Verdict.RIGHT] * 3
    assert sessions.count == 1


def test_a_count_that_was_there_is_refused_and_gaps_are_taken(sessions: DigestSessions) -> None:
    client = Client(sessions.challenges()[0])
    order = [1, 3, 2, 2, 3, 200, 73, 72, 200, 0]
    verdicts = [judged(sessions, client.answer(count=each)) is Verdict.RIGHT for each in order]
    assert verdicts == [True, True, True, False, False, True, True, False, False, False]


@given(st.lists(st.integers(1, 400), max_size=80))
def test_no_count_is_ever_taken_twice(counts: list[int]) -> None:
    sessions = DigestSessions(REALM, random.Random(7).randbytes, Clock())
    client = Client(sessions.challenges()[0])
    taken = [each for each in counts if judged(sessions, client.answer(count=each)) is Verdict.RIGHT]
    assert len(taken) == len(set(taken))


def test_a_redirected_answer_comes_once_more_and_for_that_target_alone(sessions: DigestSessions) -> None:
    client = Client(sessions.challenges()[0])
    header = client.answer("/smgw/m2m")
    assert judged(sessions, header, "/smgw/m2m") is Verdict.RIGHT
    assert judged(sessions, header, "/own") is Verdict.WRONG
    sessions.move(parse_answer(header), "/own")
    assert judged(sessions, header, "/other") is Verdict.WRONG
    assert judged(sessions, header, "/own", "POST") is Verdict.WRONG  # the method is part of the answer
    assert judged(sessions, header, "/own") is Verdict.RIGHT
    assert judged(sessions, header, "/own") is Verdict.WRONG
    assert judged(sessions, client.answer("/own"), "/own") is Verdict.RIGHT  # the session goes on


def test_redirections_nobody_follows_cost_bounded_memory(sessions: DigestSessions) -> None:
    client = Client(sessions.challenges()[0])
    headers = [client.answer("/a") for _ in range(200)]
    for each in headers:
        assert judged(sessions, each, "/a") is Verdict.RIGHT
        sessions.move(parse_answer(each), "/b")
    followed = [judged(sessions, each, "/b") is Verdict.RIGHT for each in headers]
    assert followed == [False] * 136 + [True] * 64


def test_an_answer_for_another_target_method_or_realm_is_wrong(sessions: DigestSessions) -> None:
    client = Client(sessions.challenges()[0])
    assert judged(sessions, client.answer(), target="/smgw/con/v1/") is Verdict.WRONG
    assert judged(sessions, client.answer(), method="POST") is Verdict.WRONG
    assert judged(sessions, client.answer(realm='"estk0100000002"')) is Verdict.WRONG
    assert sessions.count == 0


def test_an_unknown_user_and_a_wrong_password_are_told_alike(sessions: DigestSessions) -> None:
    wrong = Client(sessions.challenges()[0], password="other")
    assert judged(sessions, wrong.answer()) is Verdict.WRONG
    assert sessions.judge(parse_answer(wrong.answer()), "GET", "/smgw/", None) is Verdict.WRONG
    assert sessions.judge(parse_answer(wrong.answer()), "GET", "/smgw/", {}) is Verdict.WRONG


def test_a_nonce_is_stale_when_forged_old_idle_or_past_its_session(sessions: DigestSessions, clock: Clock) -> None:
    forged = Client(sessions.challenges()[0])
    forged.fields["nonce"] = forged.fields["nonce"][:-4] + "AAAA"
    assert judged(sessions, forged.answer()) is Verdict.STALE
    late = Client(sessions.challenges()[0])
    idle = Client(sessions.challenges()[0])
    assert judged(sessions, idle.answer()) is Verdict.RIGHT
    clock.now_s += FIRST_USE_S + 1
    assert judged(sessions, late.answer()) is Verdict.STALE
    assert judged(sessions, idle.answer()) is Verdict.RIGHT
    clock.now_s += IDLE_S + 1
    assert [judged(sessions, idle.answer()) for _ in range(2)] == [Verdict.STALE] * 2
    busy = Client(sessions.challenges()[0])
    for _ in range(int(SESSION_S / 500)):
        assert judged(sessions, busy.answer()) is Verdict.RIGHT
        clock.now_s += 500
    clock.now_s += 500
    assert judged(sessions, busy.answer()) is Verdict.STALE


def test_72_hours_of_polling_every_second_keep_memory_flat(sessions: DigestSessions, clock: Clock) -> None:
    steady, known = Client(sessions.challenges()[0]), 0
    for second in range(72 * 3600):
        clock.now_s += 1
        verdict = judged(sessions, steady.answer())
        if verdict is Verdict.STALE:  # after two days
            steady = Client(sessions.challenges(is_stale=True)[0])
            verdict = judged(sessions, steady.answer())
        assert verdict is Verdict.RIGHT
        if second % 60 == 0:  # one session a request, as some clients do
            assert judged(sessions, Client(sessions.challenges()[1]).answer()) is Verdict.RIGHT
            known = max(known, sessions.count)
    assert known <= SESSIONS_MAX


def test_a_session_that_made_room_never_begins_again(sessions: DigestSessions, clock: Clock) -> None:
    clients = []
    for _ in range(SESSIONS_MAX + 3):
        clock.now_s += 0.01
        clients.append(Client(sessions.challenges()[0]))
        assert judged(sessions, clients[-1].answer()) is Verdict.RIGHT
    assert [judged(sessions, each.answer(count=1)) for each in clients[:3]] == [Verdict.STALE] * 3
    assert judged(sessions, clients[5].answer()) is Verdict.RIGHT


def test_after_a_restart_a_right_answer_is_stale_and_no_failure(sessions: DigestSessions, clock: Clock) -> None:
    client = Client(sessions.challenges()[0])
    again = DigestSessions(REALM, random.Random(8).randbytes, clock)
    assert judged(again, client.answer()) is Verdict.STALE


@pytest.mark.parametrize(
    "header",
    [
        "", "Basic YTpi", "Digest", 'Digest username="a"', "Digest " + "a" * 3000, 'Digest username="a" realm="b"',
        'Digest username="a", username="b"',
    ],
)  # fmt: skip
def test_what_is_no_digest_answer_is_refused(header: str) -> None:
    with pytest.raises(RemoteProtocolError, match="bad_authorization"):
        parse_answer(header)


def test_an_answer_without_qop_or_with_another_hash_is_refused(sessions: DigestSessions) -> None:
    client = Client(sessions.challenges()[0])
    for changed in ({"qop": ""}, {"qop": "auth-int"}, {"algorithm": "SHA-512-256"}, {"nc": "1"}, {"cnonce": ""}):
        with pytest.raises(RemoteProtocolError, match="bad_authorization"):
            parse_answer(client.answer(count=1, **changed))


@given(st.text(max_size=300))
def test_any_header_is_read_or_refused(text: str) -> None:
    with suppress(RemoteProtocolError):
        parse_answer(f"Digest {text}")


# --- delays -----------------------------------------------------------------------------------------------------------


def test_delays_grow_up_to_five_minutes_and_end(clock: Clock) -> None:
    throttle = LoginThrottle(clock)
    waits = []
    for _ in range(16):
        throttle.failed("anna", "192.0.2.1")
        waits.append(throttle.wait_s("anna", "192.0.2.1"))
        clock.now_s += waits[-1]
        assert throttle.wait_s("anna", "192.0.2.1") == 0
    assert waits[:6] == [0, 0, 1, 2, 4, 8]
    assert waits[-1] == DELAY_S_MAX
    clock.now_s += FORGOTTEN_S + 1
    throttle.failed("anna", "192.0.2.1")
    assert throttle.wait_s("anna", "192.0.2.1") == 0


def test_many_addresses_slow_an_account_but_not_where_it_logged_in(clock: Clock) -> None:
    throttle = LoginThrottle(clock)
    throttle.succeeded("anna", "192.0.2.9")
    for each in range(40):
        throttle.failed("anna", f"198.51.100.{each}")
    assert throttle.wait_s("anna", "203.0.113.1") == DELAY_S_MAX
    assert throttle.wait_s("anna", "192.0.2.9") == 0
    assert throttle.wait_s("ben", "203.0.113.1") == 0


def test_many_names_slow_an_address_and_memory_stays_bounded(clock: Clock) -> None:
    throttle = LoginThrottle(clock)
    for each in range(10_000):
        throttle.failed(f"name{each}", "2001:db8::1")
    assert throttle.wait_s("anna", "2001:db8::2") == DELAY_S_MAX  # the same network
    assert throttle.wait_s("anna", "2001:db8:1::2") == 0
    assert len(throttle._failures) <= 4096


# --- accounts ---------------------------------------------------------------------------------------------------------


class Profiles:
    """A set in force that the test changes."""

    identity = REALM.upper()

    def __init__(self, current: ProfileSet | None = None) -> None:
        self.current = current
        self.version = 0 if current is None else current.version
        self.keys_version = 0
        self.changed = trio.Event()

    @property
    def newest_version(self) -> int:
        return max(self.version, self.keys_version)

    def processing(self, moment: datetime) -> list[ProcessingProfile]:
        raise NotImplementedError

    def devices_of(self, profile: ProcessingProfile) -> list[str | None]:
        return [f"log-{each.meter}" for each in profile.meters]


class Secrets(dict[str, bytes]):
    """A store of its own."""

    def secret(self, gateway: str, name: str) -> bytes | None:
        return self.get(f"{gateway} {name}")

    async def keep(self, gateway: str, name: str, secret: bytes) -> None:
        self[f"{gateway} {name}"] = secret


POINTS = ("DE0001234567890123456789012345678", "DE0001234567890123456789012345679")


def profile_set(**han: Any) -> ProfileSet:
    timed = {"valid_from": "1970-01-01T00:00:00Z"}
    document = {
        "gateway": REALM.upper(), "version": 1, "issued_at": "2026-11-01T12:00:00Z",
        "meters": [
            timed | {"id": f"m{n}", "device": f"{REALM}/{n}", "protocol": "sml", "registers": ["1-0:1.8.0*255"]}
            for n in range(2)
        ],
        "processing": [
            timed | {
                "id": f"p{n}", "metering_point": POINTS[n], "obis": "1-0:1.8.0*255", "meters": [{"meter": f"m{n}"}],
                "use_case": {"taf": 7}, "billing_period": {"begins": "2026-01-01T00:00:00+01:00", "months": 1},
                "recipients": [{"participant": "emp", "communication": "w1", "delivery": "aggregated"}],
            }
            for n in range(2)
        ],
        "wan": [timed | {
            "id": "w1", "role": "participant", "uri": "https://localhost:7", "tls_certificate": "00" * 32,
            "encryption_certificate": "00" * 32, "signature_certificate": "00" * 32,
        }],
        "han": [timed | {
            "id": "h1", "role": "consumer", "user": "carl", "metering_points": [POINTS[1]],
            "ha1_sha256": VERIFIER[Algorithm.SHA256],
        } | han],
    }  # fmt: skip
    return ProfileSet.model_validate_json(json.dumps(document))


def configured() -> list[Account]:
    return [Account(USER, Role.CONSUMER, ("log-m0",), (Contract(USER, ()),), frozenset(), VERIFIER)]


def test_configured_accounts_end_with_the_first_profile_set(clock: Clock) -> None:
    profiles = Profiles()
    accounts = Accounts(profiles, configured(), Secrets(), clock)
    assert [each.user for each in accounts.all()] == ["anna"]
    profiles.current, profiles.version = profile_set(), 1
    (carl,) = accounts.all()
    assert (carl.user, carl.meters, carl.role) == ("carl", ("log-m1",), Role.CONSUMER)
    assert accounts.of_user("anna") is None
    profiles.current = None  # the stored set does not hold: nobody is let in by a file instead
    assert accounts.all() == []


def test_a_store_from_before_the_first_set_lets_no_configured_account_in(clock: Clock) -> None:
    profiles = Profiles()
    profiles.keys_version = 3
    accounts = Accounts(profiles, configured(), Secrets(), clock)
    assert accounts.all() == []
    assert accounts.of_user(USER) is None


def test_interfaces_of_other_gateways_come_from_the_profile_alone(clock: Clock) -> None:
    for named in ([], ["ppc"], ["emh", "theben"]):
        (carl,) = Accounts(Profiles(profile_set(facades=named)), [], Secrets(), clock).all()
        assert carl.facades == frozenset(named)


def test_an_account_ends_with_the_validity_of_its_profile(clock: Clock) -> None:
    ends = datetime.fromtimestamp(clock.now_s + 10, UTC).isoformat()
    accounts = Accounts(Profiles(profile_set(valid_to=ends)), [], Secrets(), clock)
    assert accounts.of_user("carl") is not None
    clock.now_s += 10
    assert accounts.of_user("carl") is None


async def test_a_password_set_at_home_lasts_until_a_new_first_one(clock: Clock) -> None:
    secrets = Secrets()
    accounts = Accounts(Profiles(), configured(), secrets, clock)
    account = configured()[0]
    own = make_verifier(USER, REALM, "my own one 9")
    await accounts.set_password(account, own)
    assert accounts.verifier(account) == own
    assert Accounts(Profiles(), configured(), secrets, clock).verifier(account) == own  # after a restart
    reset = Account(USER, Role.CONSUMER, first=make_verifier(USER, REALM, "by letter"))
    assert accounts.verifier(reset) == reset.first


def login(clock: Clock) -> tuple[Login, list[int]]:
    noted: list[int] = []
    accounts = Accounts(Profiles(), configured(), Secrets(), clock)
    sessions = DigestSessions(REALM, random.Random(7).randbytes, clock)
    return Login(accounts, sessions, LoginThrottle(clock), lambda _user, count: noted.append(count)), noted


def test_while_it_waits_even_the_right_password_is_not_looked_at(clock: Clock) -> None:
    made, noted = login(clock)

    def tried(password: str) -> Account | Refusal:
        client = Client(made.sessions.challenges()[0], password=password)
        return made.identify(LoginRequest("GET", "/smgw/", "192.0.2.1", client.answer()))

    for _ in range(3):
        assert isinstance(tried("wrong"), Refusal)
    refused = tried(PASSWORD)
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.reason) == (403, "too_many_failed_logins")
    assert b"retry_at" in refused.body(0.0)
    clock.now_s += refused.wait_s
    assert isinstance(tried(PASSWORD), Account)
    assert noted == []
    for _ in range(9):
        clock.now_s += DELAY_S_MAX
        tried("wrong")
    assert noted == [4, 8]


def test_a_stale_answer_is_no_failure(clock: Clock) -> None:
    made, _ = login(clock)
    client = Client(made.sessions.challenges()[0])
    clock.now_s += FIRST_USE_S + 1
    for _ in range(50):
        refused = made.identify(LoginRequest("GET", "/smgw/", "192.0.2.1", client.answer()))
        assert isinstance(refused, Refusal)
        assert refused.reason == "stale"
        assert all("stale=true" in each for each in refused.challenges)
