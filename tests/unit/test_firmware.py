"""Firmware on a node: what it refuses, and what a process leaves that is killed at any durable step."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from node.firmware import image as images
from node.firmware.checking import STORE_VERSION, Installed, check_manifest
from node.firmware.image import read_wheel, unpack
from node.firmware.slots import FirmwareDirectory
from node.firmware_config import FirmwareConfig
from protocol.errors import RemoteProtocolError
from protocol.profiles import firmware
from protocol.profiles.firmware import FirmwareManifest, FirmwareOrder, FirmwareState, version_numbers
from tests.unit.firmware_wheels import PUBLISHER, PUBLISHERS, manifest_of, order_of, own_wheel, small_wheel

NOW = datetime(2026, 11, 30, tzinfo=UTC)


class KilledError(BaseException):
    """Stands for the end of the process: nothing catches it."""


def reason_of(call: Callable[[], object]) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        call()
    return caught.value.reason


def arrived(directory: FirmwareDirectory, path: Path, version: str, issued_ms: int = 1) -> FirmwareOrder:
    """An order whose image has come."""
    order = order_of(path, version, issued_ms)
    directory.received(order.manifest)
    directory.append(order.manifest, path.read_bytes())
    return order


def in_force(directory: FirmwareDirectory, path: Path, version: str) -> None:
    directory.stage(arrived(directory, path, version))
    directory.begin_trial()
    directory.count_start()
    directory.confirm()


def test_a_release_that_does_not_fit_is_refused_by_its_reason(tmp_path: Path) -> None:
    path = small_wheel(tmp_path / "x.whl", "0.3.0")
    here = Installed("0.2.0", "0.2.5", "generic", PUBLISHERS)

    def refused(**changed: Any) -> str:
        version = changed.pop("version", "0.3.0")
        return reason_of(lambda: check_manifest(manifest_of(path, version, **changed), here, NOW))

    check_manifest(manifest_of(path, "0.3.0"), here, NOW)
    check_manifest(manifest_of(path, "0.2.5"), here, NOW)  # the slot that had it may be altered
    assert refused(product="meter") == "wrong_product"
    assert refused(hardware=("m7", "m8")) == "wrong_hardware"
    assert refused(valid_from="2026-12-01T00:00:00Z") == "firmware_not_valid"
    assert refused(valid_to="2026-11-30T00:00:00Z") == "firmware_not_valid"
    assert refused(version="0.2.0") == refused(version="0.2.4") == refused(version="0.1.9") == "firmware_downgrade"
    assert refused(minimum_version="0.2.1") == "minimum_version"
    assert refused(store_version=STORE_VERSION + 1) == "store_version"


def test_what_no_known_publisher_has_signed_is_refused(tmp_path: Path) -> None:
    """The administrator orders releases; what a gateway runs is not for it to say."""
    made = manifest_of(small_wheel(tmp_path / "x.whl", "0.3.0"), "0.3.0")
    others = Ed25519PrivateKey.generate()

    def refused(manifest: FirmwareManifest, publishers: tuple[bytes, ...] = PUBLISHERS) -> str:
        here = Installed("0.2.0", "", "generic", publishers)
        return reason_of(lambda: check_manifest(manifest, here, NOW))

    assert refused(made.model_copy(update={"publisher_signature": ""})) == "unknown_publisher"
    assert refused(made.signed_by(others)) == "unknown_publisher"
    assert refused(made.model_copy(update={"sha256": "0" * 64})) == "unknown_publisher"
    assert refused(made, ()) == refused(made, (others.public_key().public_bytes_raw(),)) == "unknown_publisher"
    both = (others.public_key().public_bytes_raw(), *PUBLISHERS)
    check_manifest(FirmwareManifest.from_bytes(made.to_bytes()), Installed("0.2.0", "", "generic", both), NOW)
    assert made == made.signed_by(PUBLISHER)


def test_a_directory_without_publishers_is_a_wrong_configuration(tmp_path: Path) -> None:
    assert FirmwareConfig(directory=tmp_path, publishers=("ab" * 32,)).publishers == ("ab" * 32,)
    with pytest.raises(ValidationError, match="expected at least one key where directory is set"):
        FirmwareConfig(directory=tmp_path)


def test_versions_count_by_their_numbers() -> None:
    assert version_numbers("0.10.0") > version_numbers("0.9.12")
    for text in ("1.2", "1.2.3.4", "01.2.3", "1.2.3rc1", ""):
        assert reason_of(lambda text=text: version_numbers(text)) == "bad_version"  # type: ignore[misc]


def test_a_firmware_file_that_was_altered_is_refused(tmp_path: Path) -> None:
    path = small_wheel(tmp_path / "x.whl", "0.3.0")
    manifest = manifest_of(path, "0.3.0")
    document = firmware.pack(manifest, path.read_bytes())
    assert firmware.unpack(document) == (manifest, path.read_bytes())
    assert reason_of(lambda: firmware.unpack(document + b"x")) == "firmware_digest"
    assert reason_of(lambda: firmware.unpack(document[:-1] + bytes([document[-1] ^ 1]))) == "firmware_digest"
    assert reason_of(lambda: firmware.unpack(path.read_bytes())) == "bad_profile"


def test_the_schema_of_this_programs_store_is_read_from_its_wheel(tmp_path: Path) -> None:
    facts = read_wheel(own_wheel(tmp_path / "own.whl", "0.9.0"))
    assert (facts.product, facts.version, facts.store_version) == ("stromkreis", "0.9.0", STORE_VERSION)


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside"])
def test_an_entry_that_leads_out_of_the_slot_is_refused(tmp_path: Path, name: str) -> None:
    path = small_wheel(tmp_path / "x.whl", "0.3.0", "", **{name: b"1"})
    assert reason_of(lambda: unpack(path, tmp_path / "slot")) == "bad_image"
    assert not (tmp_path / "outside").exists()


def test_links_bombs_and_what_is_no_wheel_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_wheel(tmp_path / "x.whl", "0.3.0", big=bytes(2_000_000))
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(small_wheel(tmp_path / "link.whl", "0.3.0"), "a") as archive:
        archive.writestr(link, "/etc/passwd")
    assert reason_of(lambda: unpack(tmp_path / "link.whl", tmp_path / "slot")) == "bad_image"
    monkeypatch.setattr(images, "UNPACKED_SIZE_MAX", 1_000_000)
    assert reason_of(lambda: unpack(path, tmp_path / "slot")) == "bad_image"
    (tmp_path / "none.whl").write_bytes(b"PK")
    assert reason_of(lambda: read_wheel(tmp_path / "none.whl")) == "bad_image"


def test_a_disk_that_gets_full_gets_back_what_was_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The readings of the gateways may be on the same one."""
    directory, path = FirmwareDirectory(tmp_path / "firmware"), small_wheel(tmp_path / "x.whl", "0.3.0")
    order, real = arrived(directory, path, "0.3.0"), shutil.copyfileobj

    def full(source: Any, target: Any, size: int) -> None:
        real(source, target, size)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space"):
        directory.stage(order)
    assert [each.name for each in directory.path.iterdir()] == [f"{order.manifest.sha256}.part"]
    monkeypatch.setattr(shutil, "copyfileobj", real)
    directory.stage(order)
    assert directory.read().staged == "a"


def test_an_image_that_is_not_the_manifests_leaves_nothing(tmp_path: Path) -> None:
    directory, path = FirmwareDirectory(tmp_path / "firmware"), small_wheel(tmp_path / "x.whl", "0.3.0")
    order = order_of(path, "0.3.0")
    directory.append(order.manifest, bytes(order.manifest.size))
    assert reason_of(lambda: directory.stage(order)) == "firmware_digest"
    assert reason_of(lambda: directory.append(order.manifest, bytes(order.manifest.size + 1))) == "firmware_digest"
    other = order.model_copy(update={"manifest": order.manifest.model_copy(update={"version": "0.4.0"})})
    assert reason_of(lambda: directory.stage(arrived_as(directory, path, other))) == "bad_image"
    assert directory.received(order.manifest) == 0
    assert directory.read().staged is None


def arrived_as(directory: FirmwareDirectory, path: Path, order: FirmwareOrder) -> FirmwareOrder:
    directory.received(order.manifest)
    directory.append(order.manifest, path.read_bytes())
    return order


def test_an_image_goes_on_from_the_byte_that_it_has(tmp_path: Path) -> None:
    directory, path = FirmwareDirectory(tmp_path / "firmware"), small_wheel(tmp_path / "x.whl", "0.3.0")
    manifest, octets = manifest_of(path, "0.3.0"), path.read_bytes()
    other = manifest_of(small_wheel(tmp_path / "y.whl", "0.4.0"), "0.4.0")
    directory.append(other, b"x")
    assert directory.received(manifest) == 0
    assert directory.append(manifest, octets[:100]) == 100
    assert FirmwareDirectory(tmp_path / "firmware").received(manifest) == 100
    assert directory.append(manifest, octets[100:]) == manifest.size
    assert directory.received(other) == 0  # of one image at a time there is something


@pytest.mark.parametrize("has_current", [False, True])
def test_killed_at_any_durable_step_one_whole_release_is_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_current: bool
) -> None:
    """Between any two of them: what is in force stays so until the new one is confirmed, and the rest is done again."""
    old, new = small_wheel(tmp_path / "old.whl", "0.2.0"), small_wheel(tmp_path / "new.whl", "0.3.0")
    real, step, has_ended = os.replace, 0, False
    while not has_ended:
        path = tmp_path / f"firmware-{step}"
        directory = FirmwareDirectory(path)
        if has_current:
            in_force(directory, old, "0.2.0")
        left = step

        def replace(source: Any, target: Any) -> None:
            nonlocal left
            if left == 0:
                raise KilledError
            left -= 1
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        try:
            update(directory, new)
            has_ended = True
        except KilledError:
            pass
        monkeypatch.setattr(os, "replace", real)
        after = FirmwareDirectory(path)
        status = after.read()
        assert all(after.is_whole(each) for each in (status.current, status.staged, status.trial) if each is not None)
        record = status.record(status.current)
        running = "installed" if record is None else record.version
        assert running == ("0.3.0" if status.newest == "0.3.0" else "0.2.0" if has_current else "installed")
        update(after, new)
        assert after.read().outcome is not None
        assert after.read().newest == "0.3.0"
        step += 1
    assert step > 5


def update(directory: FirmwareDirectory, new: Path) -> None:
    """What node and supervisor do from wherever it stands, up to the end."""
    status = directory.read()
    if status.newest == "0.3.0":
        return
    if status.staged is None and status.trial is None:
        order = order_of(new, "0.3.0")
        if directory.received(order.manifest) < order.manifest.size:
            directory.append(order.manifest, new.read_bytes())
        directory.stage(order)
    directory.make_due()
    if directory.read().trial is None:
        directory.begin_trial()
    directory.count_start()
    directory.confirm()
    directory.noted()


def test_a_release_that_was_rolled_back_leaves_the_one_before(tmp_path: Path) -> None:
    directory = FirmwareDirectory(tmp_path / "firmware")
    in_force(directory, small_wheel(tmp_path / "old.whl", "0.2.0"), "0.2.0")
    directory.stage(arrived(directory, small_wheel(tmp_path / "new.whl", "0.3.0"), "0.3.0", 7))
    directory.begin_trial()
    status = directory.roll_back("ended")
    record = status.record(status.current)
    assert record is not None
    assert (record.version, status.newest, status.trial) == ("0.2.0", "0.2.0", None)
    assert status.outcome is not None
    assert (status.outcome.state, status.outcome.issued_ms) == (FirmwareState.ROLLED_BACK, 7)


def test_a_state_of_a_later_release_is_read_and_a_damaged_one_put_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = FirmwareDirectory(tmp_path)
    (tmp_path / "state.json").write_text('{"current": "a", "of_a_later_release": 1}')
    assert directory.read().current == "a"
    (tmp_path / "state.json").write_text('{"current": ')
    assert directory.read().current is None
    assert "put aside" in caplog.text
    assert (tmp_path / "state.damaged").exists()
