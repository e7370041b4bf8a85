"""What a gateway answers when it is asked for a bill, and what it never answers: a lying EMP against each rule."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, Self

import msgpack
import pytest
import trio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import CollectorRegistry

from coordinator.gwa.ca import CertificateAuthority
from coordinator.gwa.participants import TariffSigner
from loadtest.unsealed import Unsealed
from node.aggregation.bill_requests import BillRequests
from node.aggregation.bills import BillingRules, Bills
from node.aggregation.contribution import Contributions
from node.config import BillingConfig
from node.configured import billing_rules
from node.metering.registers import Registers
from node.metrics import NodeMetrics
from node.storage.cipher import StorageCipher
from node.storage.engine import Statement, Store
from node.storage.errors import StoreError
from node.storage.repositories.accounts import AccountRepository
from node.storage.repositories.bills import BillRepository
from node.storage.repositories.price_sheets import PriceSheetRepository
from node.trust import TrustStore
from protocol import pki, wire
from protocol.dcnet.billing.answers import BillAnswer, check_answer, quantum_bits
from protocol.dcnet.billing.tariff import Tariff, pack_intervals, tariff_digest
from protocol.dcnet.crypto.commitments import Pedersen, blinding_of
from protocol.dcnet.crypto.group import Edwards25519
from protocol.dcnet.machines.effects import Attempted, Progress
from protocol.dcnet.setup.schema import VERIFIED_SCHEMA
from protocol.errors import RemoteProtocolError
from protocol.logs.events import Event, Parameter

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GATEWAY = "ESTK0000000001"
IMPORT, EXPORT = "1-0:1.8.0*255", "1-0:2.8.0*255"
GROUP = Edwards25519()
PEDERSEN = Pedersen(GROUP)
VIEW: Any = SimpleNamespace(epoch=0, size=8, noise=(), committed=(1, 2), bits=(52, 52))
RULES = BillingRules(span_min_s=4 * 900, hiding_min=1)  # eight intervals instead of a month; see the last tests
MOVED = [11, 0, 250, 31, 7, 1999, 3, 45]  # what the register moves by in the intervals 1 to 8


def drawn(seed: int) -> Callable[[], int]:
    draw = Random(seed)
    return lambda: blinding_of(GROUP, uniform=draw.randbytes(64))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.create(tmp_path_factory.mktemp("sm") / "pki", NOW)


@pytest.fixture
def signer(authority: CertificateAuthority, tmp_path: Path) -> TariffSigner:
    return TariffSigner(tmp_path / "emp", authority, NOW)


class Gateway:
    """A gateway's account and bills on one store file; leaving `opened` is a crash as far as the next one can tell."""

    def __init__(self, path: Path, authority: CertificateAuthority, rules: BillingRules) -> None:
        self.path = path
        self.trust = TrustStore(authority.root, NOW.timestamp)
        self.rules = rules
        self.scaler: int | None = -1
        self.registers_s: list[int] = []
        self.sheets: set[bytes] | None = None  # that calls have listed; None: all
        self.blindings: dict[int, int] = {}  # of the import register, by interval

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        async with trio.open_nursery() as nursery:
            self.store = Store(self.path, StorageCipher(bytes(32)))
            nursery.start_soon(self.store.run)
            self.account = Contributions(AccountRepository(self.store), GATEWAY, VERIFIED_SCHEMA, drawn(1))
            self.bills = Bills(
                BillRepository(self.store),
                GATEWAY,
                PEDERSEN,
                self.trust,
                self.rules,
                lambda _: self.scaler,
                lambda _: self.registers_s,
                is_listed=lambda digest: self.sheets is None or digest in self.sheets,
            )
            yield self
            nursery.cancel_scope.cancel()
        self.store.close()

    async def contribute(self, interval: int, energy: int, *, included: bool | None = True) -> None:
        built = self.account.build(VIEW, interval, Registers(900 * interval, (1, energy, 0, 0)))
        if built is not None:
            self.blindings[interval] = built.blindings[0]
        await self.account.attempted(VIEW, Attempted(interval, 0, Progress.SHARED))
        if included is not None:
            await self.account.settle(0, interval, included=included)

    async def live(self) -> None:
        """Eight intervals, all of them in opened totals."""
        energy = 1000
        await self.account.first_reading((1, energy, 0, 0))
        for number, moved in enumerate(MOVED, 1):
            energy += moved
            await self.contribute(number, energy)


@pytest.fixture
def gateway(tmp_path: Path, authority: CertificateAuthority) -> Gateway:
    return Gateway(tmp_path / "registers.sqlite", authority, RULES)


TARIFF = Tariff("Dynamic", IMPORT, "Wh", "ct", -5, 900, 900, (3000, -12, 0, 2500, 3100, 2900, 3000, 2800))


def request(
    authority: CertificateAuthority, signer: TariffSigner, tariff: Tariff = TARIFF, intervals: list[int] | None = None
) -> wire.BillRequest:
    indices = list(range(len(tariff.prices))) if intervals is None else intervals
    document = tariff.to_bytes()
    return wire.BillRequest(
        document, signer.sign(tariff_digest(document)), signer.certificate, (pki.to_der(authority.sub_ca),),
        pack_intervals(indices, len(tariff.prices)),
    )  # fmt: skip


def holds(
    gateway: Gateway, answer: wire.Bill | None, prices: list[int], moved: list[int], intervals: list[int]
) -> bool:  # fmt: skip
    """What the EMP checks, with commitments made from the values that the test knows."""
    commitments = [
        PEDERSEN.commit(value, gateway.blindings[interval]) for value, interval in zip(moved, intervals, strict=True)
    ]
    assert answer is not None
    try:
        amount_of(answer, prices, commitments)
    except RemoteProtocolError:
        return False
    return True


def amount_of(answer: wire.Bill, prices: list[int], commitments: list[bytes]) -> int:
    bits = quantum_bits(prices, "Wh", "ct", -5, -1) if answer.proof else 0
    return check_answer(
        PEDERSEN, prices, commitments, BillAnswer.from_wire(answer),
        bits=bits, request=answer.request, reading_max=2**63 - 1,
    )  # fmt: skip


async def declines(gateway: Gateway, asked: wire.BillRequest, reason: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        await gateway.bills.answer(asked)
    assert caught.value.reason == reason


async def test_a_bill_is_what_the_commitments_say_and_is_the_same_after_a_restart(
    gateway: Gateway, authority: CertificateAuthority, signer: TariffSigner
) -> None:
    asked = request(authority, signer)
    async with gateway.opened():
        await gateway.live()
        answer = await gateway.bills.answer(asked)
        assert answer is not None
        sums = [int.from_bytes(each, "little", signed=True) for each in answer.sums]
        assert sum(price * each for price, each in zip(sorted(set(TARIFF.prices)), sums, strict=True)) == sum(
            price * moved for price, moved in zip(TARIFF.prices, MOVED, strict=True)
        )
        assert sum(sums) == sum(MOVED)
        assert holds(gateway, answer, list(TARIFF.prices), MOVED, list(range(1, 9)))
        assert await gateway.bills.answer(asked) == answer
    async with gateway.opened():
        assert await gateway.bills.answer(asked) == answer
        kept = gateway.store.read("SELECT obis, value FROM committed WHERE value NOT NULL")
        assert {obis for obis, _ in kept} == {EXPORT}  # what was billed is nobody's to read any more


async def test_the_same_intervals_at_other_prices_are_declined_for_good(
    gateway: Gateway, authority: CertificateAuthority, signer: TariffSigner
) -> None:
    dearer = replace(TARIFF, prices=tuple(price + 1 for price in TARIFF.prices))
    async with gateway.opened():
        await gateway.live()
        await gateway.bills.answer(request(authority, signer, intervals=[0, 1, 2, 3, 4]))
        await declines(gateway, request(authority, signer, dearer), "interval_billed_before")
        await declines(gateway, request(authority, signer, dearer, [5, 6, 7]), "span_too_short")
    async with gateway.opened():
        await declines(gateway, request(authority, signer, dearer), "interval_billed_before")


@pytest.mark.parametrize(
    ("tariff", "intervals", "reason"),
    [
        (TARIFF, [3], "intervals_left_out"),
        (TARIFF, [0, 1, 2], "span_too_short"),
        (TARIFF, [0, 1, 2, 3, 5, 6, 7], "intervals_left_out"),
        (replace(TARIFF, start_s=1800), [0, 1, 2, 3], "intervals_left_out"),
        (TARIFF, [], "price_count"),
        (replace(TARIFF, prices=(*TARIFF.prices, 3000)), None, "interval_not_contributed"),
        (replace(TARIFF, start_s=0), None, "interval_not_contributed"),
        (replace(TARIFF, start_s=901), None, "intervals_left_out"),
        (replace(TARIFF, obis="1-0:16.7.0*255"), None, "register_not_billed"),
    ],
)
async def test_what_is_never_answered(
    gateway: Gateway, authority: CertificateAuthority, signer: TariffSigner, tariff: Tariff, intervals: Any, reason: str
) -> None:
    async with gateway.opened():
        await gateway.live()
        await declines(gateway, request(authority, signer, tariff, intervals), reason)
        assert gateway.store.read("SELECT count(*) FROM bill") == [(0,)]
        assert gateway.store.read("SELECT count(*) FROM committed WHERE bill NOT NULL") == [(0,)]


async def test_a_node_as_configured_bills_no_few_hours(
    gateway: Gateway, authority: CertificateAuthority, signer: TariffSigner
) -> None:
    gateway.rules = billing_rules(BillingConfig())
    async with gateway.opened():
        await gateway.live()
        await declines(gateway, request(authority, signer), "span_too_short")
    gateway.rules = replace(billing_rules(BillingConfig()), span_min_s=1)
    async with gateway.opened():
        await declines(gateway, request(authority, signer), "tariff_singles_out")


async def test_registers_that_were_given_out_between_intervals_count(
    gateway: Gateway, authority: CertificateAuthority, signer: TariffSigner
) -> None:
    flat = replace(TARIFF, prices=(3000,) * 8)
    gateway.rules = replace(RULES, hiding_min=2)
    async with gateway.opened():
        await gateway.live()
        gateway.registers_s = [3 * 900, 4 * 900]
        await declines(gateway, request(authority, signer, flat), "tariff_singles_out")
        gateway.registers_s = [900, 5 * 900, 9 * 900]
        assert await gateway.bills.answer(request(authority, signer, flat)) is not None


async def test_a_gateway_says_what_it_could_be_billed_for(
    gateway: Gateway, authority: CertificateAuthority, signer: TariffSigner
) -> None:
    posted: list[wire.Message] = []
    noted: list[tuple[Event, dict[str, Parameter]]] = []
    late = replace(TARIFF, start_s=3 * 900, prices=TARIFF.prices[2:])

    def note(event: Event, **parameters: Parameter) -> None:
        noted.append((event, parameters))

    async with gateway.opened(), trio.open_nursery() as nursery:
        await gateway.live()
        requests = BillRequests(gateway.bills, GATEWAY, NodeMetrics(CollectorRegistry()), posted.append, note)
        for asked in (
            request(authority, signer, intervals=[0, 1, 4, 5]), request(authority, signer, late, [1, 2, 5]),
            request(authority, signer, intervals=[0, 1, 2, 3, 4, 5]),
        ):  # fmt: skip
            requests.receive(asked, nursery)
            with trio.fail_after(120):
                while requests._is_busy:
                    await trio.sleep(0.01)
    name = "intervals_left_out"
    declined = [each for each in posted if isinstance(each, wire.BillDeclined)]
    assert [(each.reason, each.intervals, each.earlier_count) for each in declined] == [
        (name, pack_intervals([0, 1, 2, 3, 4, 5], 8), 0), (name, pack_intervals([0, 1, 2, 3, 4, 5], 6), 2),
    ]  # fmt: skip
    until = "1970-01-01T01:45:00+00:00"
    assert noted == [
        (Event.BILL_DECLINED, {"reason": name}),  # one of a kind in an hour
        (Event.BILL_ANSWERED, {"tariff": "Dynamic", "count": 6, "until": until}),
    ]  # fmt: skip


async def test_only_a_market_participants_signature_makes_a_tariff(
    gateway: Gateway, authority: CertificateAuthority, signer: TariffSigner, tmp_path: Path
) -> None:
    good = request(authority, signer)
    key = ec.generate_private_key(ec.BrainpoolP256R1())
    tls = pki.issue(
        pki.Role.PARTICIPANT_TLS, pki.subject("Stromkreis.EMT"), key.public_key(), issuer=authority.sub_ca,
        issuer_key=authority.sub_ca_key, serial=1 << 70, not_before=authority.sub_ca.not_valid_before_utc,
        not_after=authority.sub_ca.not_valid_after_utc,
    )  # fmt: skip
    member = authority.issue_gateway(GATEWAY, key.public_key(), NOW)
    own = key.sign(tariff_digest(good.tariff), ec.ECDSA(hashes.SHA256()))
    stranger = CertificateAuthority.create(tmp_path / "other", NOW)
    theirs = TariffSigner(tmp_path / "theirs", stranger, NOW)
    changed = replace(TARIFF, prices=tuple(2 * price for price in TARIFF.prices)).to_bytes()
    for bad, reason in [
        (replace(good, signature=bytes(70)), "bad_signature"),
        (replace(good, signature=signer.sign(good.tariff)), "bad_signature"),  # over other words than a tariff's
        (replace(good, tariff=changed), "bad_signature"),
        (replace(good, certificate=pki.to_der(tls), signature=own), "key_usage"),
        (replace(good, certificate=pki.to_der(member), signature=own), "certificate_name"),
        (request(stranger, theirs), "unknown_issuer"),
    ]:
        async with gateway.opened():
            if gateway.account._opened is None:
                await gateway.live()
            await declines(gateway, bad, reason)
    gateway.rules = replace(RULES, supplier="Somebody.EMT")
    async with gateway.opened():
        await declines(gateway, good, "wrong_identity")
    gateway.rules = replace(RULES, supplier="stromkreis.emt")
    async with gateway.opened():
        assert await gateway.bills.answer(good) is not None


async def test_a_document_that_is_signed_but_no_tariff_is_declined(
    gateway: Gateway, authority: CertificateAuthority, signer: TariffSigner
) -> None:
    loose = json.dumps(json.loads(TARIFF.to_bytes()), indent=1).encode()
    asked = replace(request(authority, signer), tariff=loose, signature=signer.sign(tariff_digest(loose)))
    short = replace(request(authority, signer), intervals=b"\xff\x00")
    beyond = replace(request(authority, signer, replace(TARIFF, prices=TARIFF.prices[:7])), intervals=b"\xff")
    async with gateway.opened():
        await gateway.live()
        await declines(gateway, asked, "bad_tariff")
        await declines(gateway, short, "bad_intervals")
        await declines(gateway, beyond, "bad_intervals")


async def test_void_rounds_are_not_billable_their_energy_is_as_it_comes_back(
    gateway: Gateway, authority: CertificateAuthority, signer: TariffSigner
) -> None:
    async with gateway.opened():
        await gateway.account.first_reading((1, 1000, 0, 0))
        await gateway.contribute(1, 1010)
        await gateway.contribute(2, 1025, included=False)
        for number, energy in ((3, 1050), (4, 1060), (5, 1061)):
            await gateway.contribute(number, energy)
        await declines(gateway, request(authority, signer, intervals=[0, 1, 2, 3, 4]), "interval_not_contributed")
        prices = replace(TARIFF, prices=(1, 10, 100, 300, 500, 1, 1, 1))
        answer = await gateway.bills.answer(request(authority, signer, prices, [0, 2, 3, 4]))
        moved = [10, 20 + 2, 10 + 2, 1 + 2]  # 20 are carried, in 16 parts
        assert holds(gateway, answer, [1, 100, 300, 500], moved, [1, 3, 4, 5])


async def test_an_interval_whose_result_is_not_known_makes_the_answer_wait(
    gateway: Gateway, authority: CertificateAuthority, signer: TariffSigner
) -> None:
    asked = request(authority, signer, intervals=[0, 3, 4, 5, 6, 7])
    async with gateway.opened():
        await gateway.account.first_reading((1, 1000, 0, 0))
        for number in (1, 4, 5, 6, 7):
            await gateway.contribute(number, 1000 + number)
        await gateway.contribute(8, 1020, included=None)
        assert await gateway.bills.answer(asked) is None
    async with gateway.opened():
        assert await gateway.bills.answer(asked) is None
        await gateway.account.settle(0, 8, included=True)
        assert await gateway.bills.answer(asked) is not None


async def test_a_bill_that_cannot_be_written_does_not_leave(
    gateway: Gateway, authority: CertificateAuthority, signer: TariffSigner
) -> None:
    asked = request(authority, signer)
    full = "CREATE TRIGGER full BEFORE UPDATE ON committed BEGIN SELECT RAISE(ABORT, 'full'); END"
    async with gateway.opened():
        await gateway.live()
        await gateway.store.write([Statement(full, ())])
        with pytest.raises(StoreError):
            await gateway.bills.answer(asked)
        assert gateway.store.read("SELECT count(*) FROM bill") == [(0,)]
        await gateway.store.write([Statement("DROP TRIGGER full", ())])
        assert holds(gateway, await gateway.bills.answer(asked), list(TARIFF.prices), MOVED, list(range(1, 9)))


async def test_two_requests_at_the_same_moment_cannot_both_have_an_interval(
    gateway: Gateway, authority: CertificateAuthority, signer: TariffSigner
) -> None:
    first = request(authority, signer, intervals=[0, 1, 2, 3, 4])
    second = request(authority, signer, intervals=[0, 1, 2, 3, 4, 5, 6, 7])
    outcomes: list[object] = []
    async with gateway.opened():
        await gateway.live()

        async def ask(one: wire.BillRequest) -> None:
            try:
                outcomes.append(await gateway.bills.answer(one))
            except RemoteProtocolError as error:
                outcomes.append(error.reason)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, first)
            nursery.start_soon(ask, second)
    assert sum(isinstance(each, wire.Bill) for each in outcomes) == 1
    assert "interval_billed_before" in outcomes


@pytest.mark.parametrize(("keep_s", "kept"), [(1800, 3), (10**6, 5)])
async def test_what_is_older_than_the_retention_is_deleted_from_the_file_too(
    tmp_path: Path, keep_s: int, kept: int
) -> None:
    path = tmp_path / "registers.sqlite"
    planted = 0x5EC2E7_5EC2E7
    async with trio.open_nursery() as nursery:
        store = Store(path, Unsealed())
        nursery.start_soon(store.run)
        mine = Contributions(AccountRepository(store), GATEWAY, VERIFIED_SCHEMA, drawn(2), keep_committed_s=keep_s)
        await mine.first_reading((1, 0, 0, 0))
        energy = planted
        for number in range(1, 6):
            mine.build(VIEW, number, Registers(900 * number, (1, energy, 0, 0)))
            await mine.attempted(VIEW, Attempted(number, 0, Progress.SHARED))
            await mine.settle(0, number, included=True)
            energy += 10
        assert len(store.read("SELECT interval_s FROM committed WHERE obis=?", IMPORT)) == kept
        nursery.cancel_scope.cancel()
    store.close()
    assert (planted.to_bytes(6, "little") in path.read_bytes()) == (kept == 5)


async def test_an_earlier_bill_is_answered_again_after_a_later_one(
    gateway: Gateway, authority: CertificateAuthority, signer: TariffSigner
) -> None:
    flat = replace(TARIFF, prices=(3000,) * 8)
    earlier, later = (request(authority, signer, flat, intervals) for intervals in ([0, 1, 2, 3], [4, 5, 6, 7]))
    async with gateway.opened():
        await gateway.live()
        answer = await gateway.bills.answer(earlier)
        assert await gateway.bills.answer(later) is not None
        assert await gateway.bills.answer(earlier) == answer


async def test_a_tariff_of_more_prices_than_stages_is_billed_by_a_rounded_amount(
    gateway: Gateway, authority: CertificateAuthority, signer: TariffSigner
) -> None:
    prices = tuple(3000 + 7 * index for index in range(22))
    tariff = replace(TARIFF, prices=prices)
    asked = request(authority, signer, tariff)
    async with gateway.opened():
        await gateway.account.first_reading((1, 0, 0, 0))
        for number in range(1, 23):
            await gateway.contribute(number, 40 * number)
        gateway.scaler = None  # before the first call
        assert await gateway.bills.answer(asked) is None
        gateway.scaler = -1
        answer = await gateway.bills.answer(asked)
        assert answer is not None
        assert len(answer.sums) == 1
        assert int.from_bytes(answer.sums[0], "little", signed=True) == 22 * 40
        commitments = [PEDERSEN.commit(40, gateway.blindings[interval]) for interval in range(1, 23)]
        amount = amount_of(answer, list(prices), commitments)
        exact, quantum = 40 * sum(prices), 1 << quantum_bits(prices, "Wh", "ct", -5, -1)
        assert amount == exact // quantum * quantum
        assert quantum >= 10**6  # a cent
        assert await gateway.bills.answer(asked) == answer
    async with gateway.opened():  # its proof is not made again, with other nonces
        assert await gateway.bills.answer(asked) == answer


async def test_a_bill_of_an_earlier_release_is_not_given_again(
    gateway: Gateway, authority: CertificateAuthority, signer: TariffSigner
) -> None:
    asked = request(authority, signer)
    async with gateway.opened():
        await gateway.live()
        answer = await gateway.bills.answer(asked)
        assert answer is not None
        cipher = gateway.store.cipher
        content = cipher.seal("bill", (GATEWAY, answer.request), msgpack.packb((bytes(16), bytes(32))))
        await gateway.store.write([Statement("UPDATE bill SET content=?", (content,))])
        await declines(gateway, asked, "interval_billed_before")


async def test_a_sheet_of_ones_own_is_declined_until_a_call_lists_it(
    gateway: Gateway, authority: CertificateAuthority, signer: TariffSigner
) -> None:
    asked = request(authority, signer)
    async with gateway.opened():
        await gateway.live()
        gateway.sheets = {bytes(32)}
        await declines(gateway, asked, "tariff_not_listed")
        gateway.sheets.add(tariff_digest(asked.tariff))
        assert await gateway.bills.answer(asked) is not None


async def test_a_tariff_of_another_name_than_the_customers_is_declined(
    gateway: Gateway, authority: CertificateAuthority, signer: TariffSigner
) -> None:
    gateway.rules = replace(RULES, tariff="Green")
    async with gateway.opened():
        await gateway.live()
        await declines(gateway, request(authority, signer), "wrong_tariff")
        assert await gateway.bills.answer(request(authority, signer, replace(TARIFF, name="Green"))) is not None


async def test_a_day_has_room_for_64_price_sheets(tmp_path: Path) -> None:
    sheets = [bytes([number, day]) * 16 for day in range(3) for number in range(64)]
    async with trio.open_nursery() as nursery:
        store = Store(tmp_path / "registers.sqlite", Unsealed())
        nursery.start_soon(store.run)
        mine = PriceSheetRepository(store)
        assert await mine.note(GATEWAY, sheets[:60], 900, 2 * 86_400) == 0
        assert await mine.note(GATEWAY, sheets[:66], 8 * 3600, 2 * 86_400) == 2
        assert [mine.is_listed(GATEWAY, each) for each in sheets[59:66]] == [True] * 5 + [False] * 2
        assert not mine.is_listed("ESTK0000000002", sheets[0])
        assert await mine.note(GATEWAY, sheets[64:66], 86_400 + 1800, 2 * 86_400) == 0
        assert await mine.note(GATEWAY, sheets[128:129], 3 * 86_400, 2 * 86_400) == 0
        assert [mine.is_listed(GATEWAY, each) for each in (sheets[0], sheets[64], sheets[128])] == [False, True, True]
        nursery.cancel_scope.cancel()
    store.close()
