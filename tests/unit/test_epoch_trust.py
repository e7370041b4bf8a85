"""What gateway and coordinator believe of each other: a claim that does not hold is refused, and nothing is agreed."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from coordinator.epoch_config import EpochConfig
from coordinator.events import Joined, To
from coordinator.gwa.ca import CertificateAuthority
from coordinator.gwa.joining import check_join
from coordinator.rings.areas import (
    DEAL_PER_GATEWAY_S,
    DEAL_S,
    JOIN_METERING_S,
    JOIN_PER_GATEWAY_S,
    JOIN_S,
    REVEAL_METERING_S,
    REVEAL_PER_GATEWAY_S,
    REVEAL_USUAL_S,
    SETTLE_S,
    Areas,
)
from coordinator.rings.epochs import AreaEpoch, Phase
from coordinator.rings.numbers import EpochNumbers
from coordinator.storage.gateways import GatewayRecord, GatewayStatus
from loadtest.coordination import LIST_SECRET, bare_join, commitment_of, join_all, lay_out
from node.security.module import KeyDirectory
from node.trust import TrustStore
from protocol import pki, wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.beacon import ListEntry
from protocol.dcnet.setup.epoch import Policy, call_digest, check_call, entries_of, join_text, verify_layout
from protocol.dcnet.setup.rings import RingView
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA
from protocol.errors import RemoteProtocolError

SUITE = StandardSuite()
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW_S = NOW.timestamp()
POLICY = Policy(honest_floor=2)
CONFIG = EpochConfig(rounds=6, period_s=1, origin_unix_s=1_000, ring_size=8, dropout=0.1)


class Neighbourhood:
    """Six enrolled gateways with real keys and certificates, and an epoch of their area."""

    def __init__(self, path: Path) -> None:
        self.authority = CertificateAuthority.create(path / "pki", NOW)
        self.stranger = CertificateAuthority.create(path / "other", NOW)
        self.keys = KeyDirectory(path / "keys", SUITE)
        self.modules = {name: self.keys.open(name) for name in (pki.make_gateway_id(number) for number in range(6))}
        for module in self.modules.values():
            triple = self.authority.issue_triple(pki.check_package(module.request_package()), NOW)
            module.install(tuple(map(pki.to_der, triple)), (pki.to_der(self.authority.sub_ca),))
        self.names = list(self.modules)
        self.me = self.names[0]
        self.trust = TrustStore(self.authority.root, lambda: NOW_S)
        self.areas = Areas(
            SUITE,
            CONFIG,
            lambda _: DEFAULT_SCHEMA,
            [pki.to_der(self.authority.sub_ca)],
            ["north"],
            bytes,
            EpochNumbers(),
            partial(SUITE.sign, SUITE.signing_key(LIST_SECRET)),
        )
        area = self.areas.areas["north"]
        for name in self.names:
            self.areas.arrive(area, name, NOW_S)
        ((_, self.epoch),) = self.areas.call_due(NOW_S + SETTLE_S)
        self.call = self.epoch.call

    def join(self, name: str) -> wire.Join:
        module, commitment = self.modules[name], commitment_of(self.call, name)
        epoch, nonce = module.epoch(self.call.epoch), name.encode().rjust(16)[-16:]
        keys = epoch.public_key, module.curve.public, epoch.verify_key
        signature = module.sign(join_text(call_digest(self.call), name, *keys, nonce, commitment))
        return wire.Join(self.call.epoch, self.call.try_, commitment, keys[0], keys[2], nonce, signature)

    def line(self, name: str, **changes: Any) -> GatewayRecord:
        module = self.modules[name]
        assert module.certificate is not None
        line = GatewayRecord(
            name, "north", module.certificate, bytes(32), module.curve.public, GatewayStatus.ACTIVE, 0, None, None
        )
        return replace(line, **changes)

    def all_join(self) -> list[To]:
        return lay_out(self.epoch, self.names, NOW_S + 3, self.joined)

    def joined(self, _: wire.EpochCall, name: str) -> Joined:
        return check_join(self.call, self.line(name), self.join(name))

    @property
    def entries(self) -> tuple[ListEntry, ...]:
        (shown,) = {to.message for to in self.epoch.invite(self.me) if isinstance(to.message, wire.EpochList)}
        return entries_of(shown)

    def check(self, layout: wire.EpochLayout, policy: Policy = POLICY) -> tuple[RingView, int]:
        key = self.modules[self.me].epoch(self.call.epoch).public_key
        return verify_layout(self.call, self.entries, layout, self.me, key, policy, self.trust.check)


Made = tuple[Neighbourhood, wire.EpochLayout]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    hood = Neighbourhood(tmp_path_factory.mktemp("hood"))
    layouts = [
        to.message for to in hood.all_join() if to.identity == hood.me and isinstance(to.message, wire.EpochLayout)
    ]
    yield hood, layouts[0]
    hood.keys.close()


@pytest.fixture
def hood(tmp_path: Path) -> Iterator[Neighbourhood]:
    made = Neighbourhood(tmp_path)
    yield made
    made.keys.close()


def refused(hood: Neighbourhood, layout: wire.EpochLayout, policy: Policy = POLICY) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        hood.check(layout, policy)
    return caught.value.reason


def with_member(layout: wire.EpochLayout, index: int, field: int, value: bytes | None) -> wire.EpochLayout:
    members: list[Any] = list(layout.members)
    members[index] = (*members[index][:field], value, *members[index][field + 1 :])
    return replace(layout, members=tuple(members))


def other_seat(hood: Neighbourhood, layout: wire.EpochLayout) -> int:
    return next(index for index, member in enumerate(layout.members) if member[0] != hood.me)


def test_an_honest_layout_holds(made: Made) -> None:
    hood, layout = made
    view, position = hood.check(layout)
    assert view.members[position].identity == hood.me
    assert view.size == 6


def test_forged_values_another_cut_and_another_try_are_refused(made: Made) -> None:
    hood, layout = made
    assert refused(hood, replace(layout, values=(b"n" * 32, *layout.values[1:]))) == "wrong_values"
    assert refused(hood, replace(layout, values=layout.values[:-1])) == "wrong_values"
    assert refused(hood, replace(layout, try_=1)) == "bad_layout"
    assert refused(hood, replace(layout, members=layout.members[::-1])) == "wrong_placement"
    assert refused(hood, replace(layout, members=layout.members[:-1])) == "wrong_placement"
    assert refused(hood, replace(layout, ring=1)) == "wrong_placement"


def test_a_members_swapped_keys_are_refused(made: Made) -> None:
    hood, layout = made
    seat = other_seat(hood, layout)
    assert refused(hood, with_member(layout, seat, 1, b"k" * 32)) == "bad_layout"
    assert refused(hood, with_member(layout, seat, 2, b"c" * 32)) == "bad_layout"
    assert refused(hood, with_member(layout, seat, 5, layout.members[seat - 1][5])) == "bad_signature"
    assert refused(hood, with_member(layout, seat, 5, b"\x30" * 70)) == "bad_signature"
    assert refused(hood, with_member(layout, seat, 3, layout.members[seat - 1][3])) == "bad_layout"
    assert refused(hood, with_member(layout, seat, 4, layout.members[seat - 1][4])) == "bad_layout"
    assert refused(hood, with_member(layout, seat, 1, layout.members[seat - 1][1])) == "bad_layout"
    own = next(index for index, member in enumerate(layout.members) if member[0] == hood.me)
    assert refused(hood, with_member(layout, own, 1, b"k" * 32)) == "bad_layout"


def test_a_certificate_of_another_pki_or_of_another_gateway_is_refused(made: Made) -> None:
    hood, layout = made
    seat = other_seat(hood, layout)
    name = layout.members[seat][0]
    key = ec.generate_private_key(ec.BrainpoolP256R1())
    strange = pki.to_der(hood.stranger.issue_gateway(name, key.public_key(), NOW))
    assert refused(hood, with_member(layout, seat, 6, strange)) in {"unknown_issuer", "certificate_signature"}
    with_chain = replace(with_member(layout, seat, 6, strange), intermediates=(pki.to_der(hood.stranger.sub_ca),))
    assert refused(hood, with_chain) in {"unknown_issuer", "certificate_signature"}
    assert refused(hood, with_member(layout, seat, 6, hood.modules[hood.me].certificate)) == "wrong_identity"
    assert refused(hood, with_member(layout, seat, 6, b"\x30\x03\x02\x01\x00")).startswith("certificate")


def test_trust_does_not_outlive_a_certificate(made: Made) -> None:
    hood, layout = made
    now_s = [NOW_S]
    trust = TrustStore(hood.authority.root, lambda: now_s[0])
    member = layout.members[other_seat(hood, layout)]
    text = join_text(call_digest(hood.call), *member[:5], commitment_of(hood.call, member[0]))
    trust.check(member[0], text, member[5], member[6], layout.intermediates)
    now_s[0] += 100 * 365 * 86_400
    with pytest.raises(RemoteProtocolError, match="certificate_expired"):
        trust.check(member[0], text, member[5], member[6], layout.intermediates)


def test_a_weak_epoch_is_refused(made: Made) -> None:
    hood, layout = made
    with pytest.raises(RemoteProtocolError, match="weak_epoch"):
        check_call(replace(hood.call, corrupt_ppm=9_999), Policy())
    with pytest.raises(RemoteProtocolError, match="bad_schema"):
        check_call(replace(hood.call, schema=b"[]"), Policy())
    with pytest.raises(RemoteProtocolError, match="register_not_allowed"):
        check_call(hood.call, Policy(registers=frozenset()))
    assert refused(hood, layout, replace(POLICY, ring_size_min=7)) == "ring_too_small"


def test_an_epoch_has_one_layout_for_a_gateway_also_after_a_restart(made: Made, tmp_path: Path) -> None:
    keys = KeyDirectory(tmp_path / "keys", SUITE)
    module = keys.open("ESTK0000000009")
    public = module.epoch(3).public_key
    module.fix_layout(3, b"a" * 32)
    keys.close()
    keys = KeyDirectory(tmp_path / "keys", SUITE)
    module = keys.open("ESTK0000000009")
    assert module.epoch(3).public_key == public
    module.fix_layout(3, b"a" * 32)
    with pytest.raises(RemoteProtocolError, match="second_layout"):
        module.fix_layout(3, b"b" * 32)
    with pytest.raises(RemoteProtocolError, match="second_layout"):
        module.fix_layout(4, b"b" * 32)  # an epoch that it has no seed for
    keys.close()


def test_forgotten_seeds_are_not_in_the_file_and_never_come_back(tmp_path: Path) -> None:
    keys = KeyDirectory(tmp_path / "keys", SUITE)
    module, other = keys.open("ESTK0000000001"), keys.open("ESTK0000000002")
    publics = [module.epoch(number).public_key for number in range(3)]
    theirs = other.epoch(0).public_key
    seeds = [keys.seeds.seed(module.identity, number) or b"" for number in range(3)]
    module.forget_epochs_before(2)
    stored = b"".join(path.read_bytes() for path in keys.directory.iterdir())
    assert [seed in stored for seed in seeds] == [False, False, True]
    assert module.epoch(2).public_key == publics[2]
    assert module.epoch(0).public_key != publics[0]  # no layout was ever bound to it: it begins anew
    assert other.epoch(0).public_key == theirs
    keys.close()


def test_an_epoch_that_had_a_layout_is_not_begun_again_nor_one_before_it(tmp_path: Path) -> None:
    """Under its number the account knows the round it last shared in: in another ring that would be shared again."""
    keys = KeyDirectory(tmp_path / "keys", SUITE)
    module = keys.open("ESTK0000000001")
    module.epoch(6)
    for number in (5, 7):
        module.epoch(number)
        module.fix_layout(number, b"a" * 32)
    public = module.epoch(7).public_key
    module.forget_epoch(5)
    assert module.epoch(6)
    assert module.epoch(7).public_key == public
    module.forget_epochs_before(8)
    keys.close()
    keys = KeyDirectory(tmp_path / "keys", SUITE)
    module = keys.open("ESTK0000000001")
    for number in (0, 5, 6, 7):
        with pytest.raises(RemoteProtocolError, match="past_epoch"):
            module.epoch(number)
        assert keys.seeds.seed(module.identity, number) is None
    assert module.epoch(8)
    assert keys.open("ESTK0000000002").epoch(5)
    keys.close()


def test_private_keys_stay_in_files_that_only_we_can_read(tmp_path: Path) -> None:
    keys = KeyDirectory(tmp_path / "keys", SUITE)
    module = keys.open("ESTK0000000001")
    module.epoch(0)
    assert keys.directory.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys.directory.iterdir())
    again = keys.open("ESTK0000000001")
    assert again.curve == module.curve
    assert again.certificate is None
    keys.close()


def test_a_certificate_for_another_key_is_not_installed(made: Made, tmp_path: Path) -> None:
    hood, _ = made
    keys = KeyDirectory(tmp_path / "keys", SUITE)
    module = keys.open(hood.names[1])
    others = hood.modules[hood.names[1]].certificate
    assert others is not None
    with pytest.raises(RemoteProtocolError, match="wrong_certificate"):
        module.install((others,) * 3, ())
    assert keys.open(hood.names[1]).certificate is None
    keys.close()


# --- the coordinator's side -------------------------------------------------------------------------------------------


def test_a_join_that_the_ring_would_refuse_is_refused_at_once(made: Made) -> None:
    hood, _ = made
    name = hood.names[1]
    join = hood.join(name)
    check_join(hood.call, hood.line(name), join)

    def reason(join: wire.Join, line: GatewayRecord, call: wire.EpochCall = hood.call) -> str:
        with pytest.raises(RemoteProtocolError) as caught:
            check_join(call, line, join)
        return caught.value.reason

    assert reason(replace(join, signature=b"\x30" * 70), hood.line(name)) == "bad_signature"
    another = hood.join(hood.names[2])
    assert reason(replace(join, public_key=another.public_key), hood.line(name)) == "bad_signature"
    assert reason(replace(join, verify_key=another.verify_key), hood.line(name)) == "bad_signature"
    assert reason(join, hood.line(hood.names[2])) == "bad_signature"
    assert reason(join, hood.line(name, curve_key=b"c" * 32)) == "bad_signature"
    assert reason(replace(join, commitment=b"c" * 32), hood.line(name)) == "bad_signature"
    last_s = int(pki.load_certificate(hood.line(name).certificate).not_valid_after_utc.timestamp())
    ends = replace(hood.call, start_ms=(last_s - 3) * 1000)  # 6 rounds of a second
    assert reason(join, hood.line(name), ends) == "certificate_expired"
    for key in (bytes(32), b"\x01" + bytes(31), b"\xff" * 32):
        assert reason(replace(join, public_key=key), hood.line(name)) == "key_not_liftable"
        assert reason(replace(join, verify_key=key), hood.line(name)) == "bad_verify_key"


def test_an_epoch_goes_from_call_to_running_and_back_from_its_state(hood: Neighbourhood) -> None:
    epoch = hood.epoch
    assert hood.areas.epoch(0) == (hood.areas.areas["north"], epoch)
    layouts = {to.identity: to.message for to in hood.all_join() if isinstance(to.message, wire.EpochLayout)}
    assert epoch.phase is Phase.DEALING
    assert set(layouts) == set(hood.names)
    assert epoch.join("late", bare_join()(hood.call, "late"), NOW_S) == []
    sign_list = partial(SUITE.sign, SUITE.signing_key(LIST_SECRET))
    restarted = AreaEpoch.from_state(SUITE, epoch.to_state(), [], NOW_S + 3, sign_list)  # before the first deal
    assert restarted.rings[0].view == epoch.rings[0].view
    assert any(isinstance(to.message, wire.EpochLayout) for to in restarted.greet_again(hood.me))
    out: list[To] = []
    for name in hood.names:
        own_key = hood.modules[name].epoch(0).public_key
        view, position = verify_layout(hood.call, hood.entries, layouts[name], name, own_key, POLICY, hood.trust.check)
        secrets = hood.modules[name].epoch(0)
        secrets.bind(view, position)
        deal = secrets.deal()
        with pytest.raises(RemoteProtocolError, match="bad_deal"):
            epoch.deal(name, replace(deal, sealed=deal.sealed[1:]), NOW_S + 4)
        out = epoch.deal(name, deal, NOW_S + 4)
    with pytest.raises(RemoteProtocolError, match=r"[a-z]"):
        epoch.deal("nobody", deal, NOW_S + 4)
    assert hood.epoch.phase is Phase.RUNNING
    assert sum(isinstance(to.message, wire.Appoint) for to in out) == 1
    ended = Ended(0, 0, 2, wire.Outcome.VOID, 0, 4, 0, 0, (), False, "because", NOW_S, NOW_S)
    restarted = AreaEpoch.from_state(SUITE, epoch.to_state(), [ended], NOW_S + 5, sign_list)
    assert (restarted.phase, restarted.call, restarted.members) == (Phase.RUNNING, epoch.call, epoch.members)
    ring = restarted.rings[0]
    assert (ring.view, ring.deals) == (epoch.rings[0].view, epoch.rings[0].deals)
    before = epoch.rings[0].ledger
    assert ring.ledger is not None
    assert before is not None
    assert ring.ledger.ended == {2: ended}
    assert ring.ledger._secrets.sign(b"text") == before._secrets.sign(b"text")
    assert ring.ledger.term == 4 + ring.view.size  # the same head, in a term that nobody has heard of
    assert [type(to.message) for to in restarted.invite(hood.me)[:4]] == [
        wire.EpochCall, wire.EpochList, wire.EpochLayout, wire.Deals,
    ]  # fmt: skip


def test_an_epoch_that_too_few_join_is_refused_and_called_again_later(hood: Neighbourhood) -> None:
    hood.names = hood.names[:2]
    join_all(hood.epoch, hood.names, NOW_S + 3, hood.joined)
    out = hood.epoch.on_timer(hood.epoch.next_timer_s())
    assert hood.epoch.phase is Phase.REFUSED
    assert {type(to.message) for to in out} == {wire.Refused}
    assert hood.epoch.over
    now_s = NOW_S + 10
    assert hood.areas.drop_finished(now_s, set()) == [hood.epoch]
    assert hood.areas.call_due(now_s) == []
    ((_, again),) = hood.areas.call_due(hood.areas.next_timer_s())
    assert again.call.epoch == 1


def test_the_next_epoch_follows_the_last_round_on_the_same_grid(hood: Neighbourhood) -> None:
    hood.all_join()
    call, end_s = hood.call, hood.epoch.end_s()
    assert CONFIG.rounds < JOIN_METERING_S + REVEAL_METERING_S, "there is no time for another try"
    per_gateway_s = JOIN_PER_GATEWAY_S + REVEAL_PER_GATEWAY_S + DEAL_PER_GATEWAY_S
    due_s = end_s - (JOIN_S + REVEAL_USUAL_S + DEAL_S + 6 * per_gateway_s) - CONFIG.period_s
    assert hood.areas.next_timer_s() == pytest.approx(due_s)
    assert hood.areas.call_due(due_s - 0.1) == []
    ((_, follower),) = hood.areas.call_due(due_s + 0.001)
    assert follower.call.start_ms == call.start_ms + call.rounds * call.period_ms
    assert follower.call.interval_start_s == call.interval_start_s + call.rounds * call.interval_s
    assert hood.areas.call_due(due_s + 1) == []


def test_a_gateways_certificate_that_holds_for_its_role_holds_for_no_other(made: Made) -> None:
    """Also where the chain is remembered: else any member could sign tariffs."""
    hood, _ = made
    module, text, below = hood.modules[hood.me], b"a tariff", [pki.to_der(hood.authority.sub_ca)]
    signature, certificate = module.sign(text), module.certificate
    assert certificate is not None
    hood.trust.check(hood.me, text, signature, certificate, below)
    with pytest.raises(RemoteProtocolError):
        hood.trust.check_participant(None, text, signature, certificate, below)
    hood.trust.check(hood.me, text, signature, certificate, below)
