"""D2: an old copy of a gateway's store beside its present keys, and a coordinator that vouches for the copy."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from node.storage.repositories.attendance import AttendanceRepository
from node.storage.repositories.beacon import BeaconRepository, Since
from node.storage.repositories.bills import CommittedValue, keep_committed
from protocol.dcnet.discipline.returns import TOKENS_MAX, Attendance
from protocol.dcnet.setup.calendar import NewestEpoch
from protocol.dcnet.setup.epoch import Policy
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA
from tests.integration.test_membership import Gateway, call, gateway, whole

OBIS = "1-0:1.8.0*255"


async def start_with(mine: Gateway, tmp_path: Path, known_epoch: int | None, bound_epoch: int) -> AttendanceRepository:
    """A gateway whose store knows of one epoch and whose keys were bound in another, called into the next."""
    context = mine.membership._context
    module, accounts = context.module, context.contributions._accounts
    store = accounts._store  # type: ignore[attr-defined]
    attendance = AttendanceRepository(store)
    await attendance.replace(module.identity, Attendance(TOKENS_MAX, 0))
    await BeaconRepository(store).begin(module.identity, Since(0, is_first=True))
    await store.write(keep_committed(store.cipher, module.identity, 900, [CommittedValue(OBIS, 7, 5)], 10**9))
    if known_epoch is not None:
        await attendance.put_newest_epoch(module.identity, NewestEpoch(known_epoch, -(10**6)))
    if bound_epoch >= 0:
        module.epoch(bound_epoch)
        module.fix_layout(bound_epoch, b"layout".ljust(32))
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            ours = whole(mine, tmp_path)
            ours._epochs._services = replace(ours._epochs._services, policy=Policy())
            ours._epochs.serve_in(nursery)
            await ours.receive(call(DEFAULT_SCHEMA, bound_epoch + 1))
            scope.cancel()
    return attendance


@pytest.fixture(autouse=True)
def unsigned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway is not enrolled: what it signs is not looked at."""
    monkeypatch.setattr("node.security.module.GatewaySecurityModule.sign", lambda *_: bytes(64))


@pytest.mark.parametrize(
    ("known_epoch", "bound_epoch", "is_old"),
    # None: from before the first layout, since it has never contributed; test_unversioned_store.py has one that has.
    [(-1, 0, True), (0, 0, False), (1, 0, False), (None, 0, True), (None, -1, False)],
)
async def test_a_store_older_than_its_keys_answers_no_bill_again(
    tmp_path: Path, known_epoch: int | None, bound_epoch: int, *, is_old: bool
) -> None:
    """A copy has back what was spent and what was billed; the coordinator that says it is the newest is the EMP."""
    async with gateway(tmp_path) as mine:
        attendance = await start_with(mine, tmp_path, known_epoch, bound_epoch)
        kept = attendance.attendance("ESTK0000000001")
        assert kept is not None
        assert kept.tokens == (0 if is_old else TOKENS_MAX)
        assert (mine.membership.account._accounts.account("ESTK0000000001") is None) is is_old
        waiting = attendance._store.read("SELECT value FROM committed WHERE value IS NOT NULL")
        assert bool(waiting) is not is_old
        assert mine.count("ring_events", event="account_started_anew") == is_old
        since = BeaconRepository(attendance._store).since("ESTK0000000001")
        assert since is not None
        assert since.is_first is not is_old, "values that it has shown are not in the copy: one more, and not eight"
