"""Profile sets from the operator's file to the gateway's store: whole or not at all, newer only, by signature alone."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from coordinator.gwa.ca import CertificateAuthority
from coordinator.gwa.participants import administrator_keys
from coordinator.storage.profile_sets import ProfileSetState
from loadtest.network import Network
from node.profiles.checking import text_of
from node.profiles.contribution_rule import ContributionRule
from node.security.module import KeyDirectory
from node.storage.cipher import StorageCipher
from node.storage.engine import Statement, Store
from node.storage.repositories.profile_sets import KEPT_MAX, ProfileSetRepository
from node.wan.administration import Administration
from node.wan.wakeup import WakeUpListener
from protocol import cms, pki
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.errors import RemoteProtocolError
from protocol.link.entropy import SystemEntropy
from protocol.logs.events import Event
from protocol.pki import Role
from protocol.profiles.profile_set import ProfileSet
from protocol.profiles.receipt import Receipt
from protocol.profiles.template import ProfileTemplate
from stromkreis.__main__ import build
from tests.integration.gwa_world import HEADERS, NOW, ONE, POINT, SHA256, TWO, World, client_of, document, world_in


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as made:
        yield made


async def test_a_set_is_taken_and_still_in_force_after_a_restart(world: World) -> None:
    async with client_of(world) as client:
        profiles = [world.profiles(ONE), world.profiles(TWO)]
        assert (await world.roll_out(client, world.document(ONE))).status_code == 202
        await Administration(client, lambda: profiles, 60).look()
    assert world.state(ONE) == (1, ProfileSetState.TAKEN, "")
    assert profiles[0].current == ProfileSet.from_bytes(json.dumps(world.document(ONE)).encode())
    assert profiles[1].current is None
    assert [event for event, _ in world.noted] == [Event.PROFILES_TAKEN]
    again = world.profiles(ONE)
    assert (again.version, again.current) == (1, profiles[0].current)
    assert [each.id for each in again.processing(world.now)] == ["p1"]
    assert again.processing(datetime(2025, 12, 31, tzinfo=UTC)) == []
    assert again.devices_of(again.processing(world.now)[0]) == [f"{ONE}/0"]


async def test_who_was_never_given_a_set_gets_the_initial_one_once(world: World) -> None:
    template = json.dumps(world.document("{gateway}")).replace(POINT, f"DE{'0' * 23}{{number}}")
    world.rollout._initial = ProfileTemplate(template)
    async with client_of(world) as client:
        await world.roll_out(client, world.document(ONE, 5))
        profiles = [world.profiles(ONE), world.profiles(TWO)]
        for _ in range(2):
            await Administration(client, lambda: profiles, 60).look()
    assert [each.version for each in profiles] == [5, 1]
    assert profiles[1].current is not None
    assert profiles[1].current.processing[0].metering_point == f"DE{'0' * 23}{TWO[-8:]}"
    assert all(each.asked.is_set() for each in profiles)
    assert [world.state(each)[0] for each in (ONE, TWO)] == [5, 1]


async def test_a_store_that_is_put_back_brings_no_old_set_into_force(world: World) -> None:
    """Nor none at all, by which `contribute_without_profile` would count again."""
    async with client_of(world) as client:
        await world.roll_out(client, world.document(ONE))
        await Administration(client, lambda: [world.profiles(ONE)], 60).look()
        await world.roll_out(client, world.document(ONE, 2))
        await Administration(client, lambda: [world.profiles(ONE)], 60).look()
        await world.store.write([Statement("DELETE FROM profile_set WHERE version=2", ())])
        old = world.profiles(ONE)
        assert (old.version, old.newest_version, old.current) == (1, 2, None)
        await world.store.write([Statement("DELETE FROM profile_set", ())])
        none = world.profiles(ONE)
        assert (none.version, none.newest_version, none.current) == (0, 2, None)
        rule = ContributionRule(none, [f"{ONE}/0"], "Nord", without_profile=True)
        assert rule.why_not(None, 0) == "no_profiles"
        await Administration(client, lambda: [none], 60).look()
        assert (none.version, none.current is None) == (2, False)


async def test_a_gateway_that_has_stopped_keeps_no_set_that_comes_late(world: World) -> None:
    """It may have left for good meanwhile, and its rows are deleted."""
    async with client_of(world) as client:
        await world.roll_out(client, world.document(ONE))
        profiles = world.profiles(ONE)
        profiles.close()
        await Administration(client, lambda: [profiles], 60).look()
    assert (profiles.version, world.profiles(ONE).version) == (0, 0)


async def test_a_gateway_with_new_keys_and_no_set_gets_its_newest_anew(world: World) -> None:
    """Its pod's volume was lost: what was encrypted to the old key opens no more."""
    async with client_of(world) as client:
        await world.roll_out(client, world.document(ONE))
        await Administration(client, lambda: [world.profiles(ONE)], 60).look()
        world.keys.close()
        world.keys = KeyDirectory(world.path / "keys-of-a-new-volume", StandardSuite())
        assert world.coordinator.gateways.revoke(ONE, int(world.now.timestamp() * 1000))
        assert world.coordinator.gateways.release(ONE, int(world.now.timestamp() * 1000))
        await world.enrol(client, ONE)
        known = world.store
        with closing(Store(world.path / "new.sqlite", StorageCipher(bytes(32)))) as world.store:
            async with world.store.writing():
                profiles = world.profiles(ONE)
                await Administration(client, lambda: [profiles], 60).look()
        world.store = known
    assert profiles.version == 1
    assert world.state(ONE) == (1, ProfileSetState.TAKEN, "")


async def test_only_the_gateway_itself_learns_that_a_set_waits(world: World) -> None:
    """Without a proof, with another gateway's, with one that is too old, and after the gateway was revoked."""
    one, two = world.profiles(ONE).query_proof(), world.profiles(TWO).query_proof()

    async def asked(client: httpx.AsyncClient, proof: str) -> tuple[list[str], list[str], int]:
        body = {"items": [{"gateway": ONE, "version": 0, "proof": proof}, {"gateway": TWO, "version": 0, "proof": two}]}
        answer = (await client.post("/api/v1/profile-sets/newer", json=body)).json()
        path = f"/api/v1/profile-sets/{ONE}/1/message"
        message = await client.get(path, headers={"X-Gateway-Proof": proof})
        return (
            [each["gateway"] for each in answer["items"]], [each["reason"] for each in answer["refused"]],
            message.status_code,
        )  # fmt: skip

    async with client_of(world) as client:
        for gateway in (ONE, TWO):
            await world.roll_out(client, world.document(gateway))
        assert await asked(client, one) == ([ONE, TWO], [], 200)
        at, _, signature = one.partition(".")
        for proof in (two, f"{int(at) + 1}.{signature}", "", "1", f"{at}.{'A' * 96}", f"{at}.{signature[:-4]}=A=="):
            assert await asked(client, proof) == ([TWO], ["bad_proof"], 403), proof
        assert (await client.get(f"/api/v1/profile-sets/{ONE}/1/message")).status_code == 422
        for away in (timedelta(hours=2), timedelta(hours=-2)):
            world.now += away
            two = world.profiles(TWO).query_proof()
            assert await asked(client, one) == ([TWO], ["old_proof"], 403)
            world.now -= away
        two = world.profiles(TWO).query_proof()
        assert world.coordinator.gateways.revoke(ONE, int(world.now.timestamp() * 1000))
        assert await asked(client, one) == ([TWO], ["gateway_unknown"], 404)


async def test_a_gateway_that_is_not_believed_says_so_once(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    profiles = [world.profiles(ONE), world.profiles(TWO)]
    async with client_of(world) as client:
        for gateway in (ONE, TWO):
            await world.roll_out(client, world.document(gateway))
        administration = Administration(client, lambda: profiles, 60)
        with monkeypatch.context() as patch:
            patch.setattr(type(world.modules[ONE]), "sign", lambda *_: b"no signature at all")
            for _ in range(3):
                await administration.look()
        assert [each.version for each in profiles] == [0, 0]
        assert caplog.text.count("is not believed: bad_proof") == 2
        profiles = [world.profiles(ONE), world.profiles(TWO)]
        await administration.look()
    assert [each.version for each in profiles] == [1, 1]


async def test_versions_only_go_up_also_after_a_restart(world: World) -> None:
    async with client_of(world) as client:
        await world.roll_out(client, world.document(ONE, 3))
        old = world.coordinator.profile_sets.newest(ONE)
        await Administration(client, lambda: [world.profiles(ONE)], 60).look()
        await world.roll_out(client, world.document(ONE, 4))
        profiles = world.profiles(ONE)
        await Administration(client, lambda: [profiles], 60).look()
    assert old is not None
    certificate = pki.to_der(world.rollout._keys.signature.certificate)
    above = [pki.to_der(world.authority.sub_ca)]
    for each in (profiles, world.profiles(ONE)):
        receipt = await each.take(3, old.message, certificate, above)
        content, _ = cms.verify(receipt, "1.2.840.113549.1.7.1", [_signer(world)], cms.Limits())
        assert Receipt.from_bytes(content).reason == "old_version"
        assert each.version == 4


def _signer(world: World) -> Any:
    return world.modules[ONE].signature_key.certificate


CHANGES = [
    pytest.param({"gateway": TWO}, "wrong_gateway", id="another gateway's"),
    pytest.param({"certificates": []}, "certificate_missing", id="no certificate to encrypt to"),
    pytest.param({"meters": [{"device": "1EMH9"}]}, "unknown_meter", id="a meter that is not here"),
]


@pytest.mark.parametrize(("changed", "reason"), CHANGES)
async def test_a_set_that_does_not_fit_changes_nothing(world: World, changed: dict[str, Any], reason: str) -> None:
    async with client_of(world) as client:
        profiles = world.profiles(ONE)
        await world.roll_out(client, world.document(ONE, 1))
        await Administration(client, lambda: [profiles], 60).look()
        before = profiles.current
        made = world.document(ONE, 2)
        if "meters" in changed:
            made["meters"][0] |= changed["meters"][0]
        else:
            made |= changed
        signed = world.rollout
        if reason == "wrong_gateway":  # signed and encrypted to this one all the same
            made = world.document(TWO, 2)
            content = signed._protect(
                ProfileSet.from_bytes(json.dumps(made).encode()).to_bytes(),
                world.modules[ONE].encryption_keys[0].certificate,
            )
            receipt = await profiles.take(2, content, *_chain(world))
            content, _ = cms.verify(receipt, "1.2.840.113549.1.7.1", [_signer(world)], cms.Limits())
            assert Receipt.from_bytes(content).reason == reason
        else:
            assert (await world.roll_out(client, made)).status_code == 202
            await Administration(client, lambda: [profiles], 60).look()
            assert world.state(ONE)[1] is ProfileSetState.REFUSED
            assert world.state(ONE)[2].startswith(reason)
    assert profiles.current == before == world.profiles(ONE).current
    assert world.noted[-1] == (Event.PROFILES_REFUSED, {"version": 2, "reason": reason})


def _chain(world: World) -> tuple[bytes, list[bytes]]:
    return pki.to_der(world.rollout._keys.signature.certificate), [pki.to_der(world.authority.sub_ca)]


async def test_only_the_gateways_own_administrator_is_believed(world: World) -> None:
    profiles = world.profiles(ONE)
    recipient = world.modules[ONE].encryption_keys[0].certificate
    content = ProfileSet.from_bytes(json.dumps(world.document(ONE)).encode()).to_bytes()
    sub_ca = pki.to_der(world.authority.sub_ca)

    async def reason(key: cms.KeyPair, above: bytes) -> str:
        message = cms.protect(content, recipient, key, entropy=SystemEntropy())
        receipt = await profiles.take(1, message, pki.to_der(key.certificate), [above])
        return Receipt.from_bytes(cms.verify(receipt, "1.2.840.113549.1.7.1", [_signer(world)], cms.Limits())[0]).reason

    stranger = CertificateAuthority.create(world.path / "other", NOW)
    foreign = administrator_keys(world.path / "other", stranger, NOW).signature
    assert await reason(foreign, pki.to_der(stranger.sub_ca)) in {"certificate_signature", "unknown_issuer"}
    assert await reason(world.participant.signature, sub_ca) in {"certificate_name", "key_usage"}
    key = ec.generate_private_key(ec.BrainpoolP256R1())
    rival = world.authority.issue(
        Role.ADMINISTRATOR_SIGNATURE, pki.subject("Rival.GWA"), key.public_key(), NOW, validity=timedelta(days=9)
    )
    assert await reason(cms.KeyPair(rival, key), sub_ca) == "wrong_identity"
    assert profiles.current is None
    assert await reason(world.rollout._keys.signature, sub_ca) == ""
    assert profiles.version == 1


async def test_a_lost_receipt_is_sent_again_and_nothing_taken_twice(world: World) -> None:
    async with client_of(world) as client:
        profiles = world.profiles(ONE)
        administration = Administration(client, lambda: [profiles], 60)
        await world.roll_out(client, world.document(ONE))
        taken = world.rollout.message(ONE, 1)
        await profiles.take(1, taken, *_chain(world))  # and the receipt is lost
        world.is_down = True
        await administration.look()
        assert world.state(ONE)[1] is ProfileSetState.WAITING
        world.is_down = False
        await administration.look()
    assert world.state(ONE)[1] is ProfileSetState.TAKEN
    assert [event for event, _ in world.noted] == [Event.PROFILES_TAKEN]


async def test_an_older_receipt_played_again_changes_nothing(world: World) -> None:
    async with client_of(world) as client:
        profiles = world.profiles(ONE)
        made = world.document(ONE)
        await world.roll_out(client, made)
        key = world.modules[ONE].signature_key
        refused = Receipt.refused(ONE, 1, "0" * 64, 1_000, RemoteProtocolError("unknown_meter")).sign(key)
        await Administration(client, lambda: [profiles], 60).look()
        body = {"receipt": base64.b64encode(refused).decode()}
        assert (await client.post(f"/api/v1/profile-sets/{ONE}/receipt", json=body)).status_code == 200
        assert world.state(ONE)[1] is ProfileSetState.TAKEN
        other = Receipt.refused(ONE, 1, "0" * 64, 2**50, RemoteProtocolError("unknown_meter"))
        forged = base64.b64encode(other.sign(world.modules[TWO].signature_key)).decode()
        answer = await client.post(f"/api/v1/profile-sets/{ONE}/receipt", json={"receipt": forged})
    assert answer.status_code == 403
    assert world.state(ONE)[1] is ProfileSetState.TAKEN


async def test_a_version_is_one_document_and_wants_the_operator(world: World) -> None:
    async with client_of(world) as client:
        assert (await world.roll_out(client, world.document(ONE, 2))).status_code == 202
        for made in (world.document(ONE, 2, delivery="aggregated"), world.document(ONE, 1)):
            answer = await world.roll_out(client, made)
            assert (answer.status_code, answer.json()["reason"]) == (409, "profile_version")
        assert (await client.post("/api/v1/profile-sets", content="{}")).status_code == 401
        assert (await client.get("/api/v1/profile-sets")).status_code == 401
        assert (await client.get(f"/api/v1/profile-sets/{ONE}")).status_code == 401
        unknown = await world.roll_out(client, world.document("ESTK0100000009"))
        assert unknown.json()["reason"] == "gateway_unknown"
        exported = await client.get(f"/api/v1/profile-sets/{ONE}", headers=HEADERS)
    assert json.loads(exported.content)["processing"][0]["metering_point"] == POINT


async def test_a_metering_point_lies_on_no_disk_in_clear(world: World) -> None:
    async with client_of(world) as client:
        await world.roll_out(client, world.document(ONE))
        await Administration(client, lambda: [world.profiles(ONE)], 60).look()
    for path in world.path.rglob("*"):
        assert not path.is_file() or POINT.encode() not in path.read_bytes(), path


async def test_a_stored_set_that_was_altered_is_not_in_force(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async with client_of(world) as client:
        await world.roll_out(client, world.document(ONE, 7))
        await Administration(client, lambda: [world.profiles(ONE)], 60).look()
        with closing(sqlite3.connect(world.path / "node.sqlite")) as file, file:
            file.execute("UPDATE profile_set SET sealed = zeroblob(length(sealed))")
        profiles = world.profiles(ONE)
        assert (profiles.current, profiles.version) == (None, 7)
        assert "waits for the next" in caplog.text
        await world.roll_out(client, world.document(ONE, 8))
        await Administration(client, lambda: [profiles], 60).look()
    assert profiles.version == 8
    assert profiles.current is not None


async def test_a_wake_up_message_has_the_profiles_fetched_at_once(world: World) -> None:
    async with client_of(world) as client, trio.open_nursery() as nursery:
        profiles, counts = world.profiles(ONE), list[str]()
        administration = Administration(client, lambda: [profiles], 3_600)
        listener = WakeUpListener(
            administration.administrator_of, lambda _: administration.wake(), world.now.timestamp, counts.append
        )
        port = await nursery.start(listener.serve, "127.0.0.1", 0)
        body = {"gateway": ONE, "host": "127.0.0.1", "port": port}
        assert (await client.post("/api/v1/profile-sets/wake-up", json=body)).status_code == 401
        await client.post("/api/v1/profile-sets/wake-up", json=body, headers=HEADERS)
        with trio.fail_after(120):
            while not counts:
                await trio.sleep(0.01)
        assert counts == ["wakeup_recipient"]  # nobody is believed before the node has heard of its administrator
        nursery.start_soon(administration.run)
        await trio.testing.wait_all_tasks_blocked(0.05)
        await world.roll_out(client, world.document(ONE))
        assert profiles.version == 0
        await client.post("/api/v1/profile-sets/wake-up", json=body, headers=HEADERS)
        with trio.fail_after(120):
            while not profiles.version:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert counts[1:] == ["taken"]
    assert world.state(ONE)[1] is ProfileSetState.TAKEN


async def test_only_the_newest_versions_are_kept(world: World) -> None:
    repository = ProfileSetRepository(world.store)
    for version in range(1, KEPT_MAX + 4):
        await world.store.write(repository.add(ONE, version, b"{}"))
    assert [repository.document(ONE, version) for version in (3, 4)] == [None, b"{}"]


async def test_a_node_takes_what_the_command_rolls_out(network: Network, tmp_path: Path) -> None:
    """Over real sockets: one gateway's set fits, the other's names a meter that it has not; both say so."""
    network.gateways = 2
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 2, "node")
        folder = tmp_path / "sets"
        folder.mkdir()
        assert network.coordinator_config is not None
        data = network.coordinator_config.data_dir
        (der,) = [pki.load_certificate(each) for each in [_pem_der(data / "pki" / "emt-encryption.pem")]]
        for number, device in enumerate(("ESTK0000000000/0", "1EMH9")):
            made = document(f"ESTK00{number:08d}")
            made["meters"][0]["device"] = device
            made["certificates"] = [text_of(der)]
            made["wan"][0]["encryption_certificate"] = der.fingerprint(SHA256).hex()
            (folder / f"{number}.json").write_text(json.dumps(made))
        options = ["--coordinator", network.web[0], "--root", str(data / "pki/root.pem"),
                   "--token-file", str(data / "operator.token")]  # fmt: skip

        def run(*arguments: str) -> Any:
            return CliRunner().invoke(build(["gwa"]), ["gwa", *options, "profiles", *arguments])

        done = await trio.to_thread.run_sync(run, "roll-out", str(folder), "--wait", "300")
        assert done.exit_code == 1
        assert "1 refused, 1 taken" in done.output
        assert "unknown_meter: processing p1" in done.output
        out = tmp_path / "out"
        assert (await trio.to_thread.run_sync(run, "export", str(out), "--gateways", "*0")).exit_code == 0
        assert [each.name for each in out.iterdir()] == ["ESTK0000000000.json"]
        again = await trio.to_thread.run_sync(run, "roll-out", str(out), "--wait", "0")
        assert again.exit_code == 0, again.output
        nursery.cancel_scope.cancel()


def _pem_der(path: Path) -> bytes:
    return pki.to_der(x509.load_pem_x509_certificates(path.read_bytes())[0])
