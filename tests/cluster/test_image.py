"""
The images of Containerfile, built: small, without pip, read by whom they are run as, and a network runs from them.

`make image-trial` builds and tests them; a plain test run does not, since building takes minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.cluster.fault_trial import COORDINATOR, EACH, GATEWAYS, Trial, audit, laboratory
from tests.cluster.manifests import ROOT
from tests.cluster.runner import run_cluster

MB_MAX = 320
SETTLED_S = 240.0
pytestmark = [
    pytest.mark.rounds,
    pytest.mark.skipif(not os.environ.get("STROMKREIS_IMAGES"), reason="make image-trial"),
]


VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def buildah(*arguments: str) -> str:
    options = subprocess.run([ROOT / ".ci" / "image", "--options"], capture_output=True, text=True, check=True)
    tool = shutil.which("buildah")
    assert tool
    done = subprocess.run([tool, *options.stdout.split(), *arguments], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout.strip()


@contextmanager
def mounted(name: str) -> Iterator[Path]:
    """The root directory of an image."""
    container = buildah("from", "--pull-never", f"localhost/{name}:{VERSION}")
    try:
        yield Path(buildah("mount", container))
    finally:
        buildah("rm", container)


@pytest.fixture(scope="module")
def images() -> Iterator[dict[str, Path]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(mounted(name)) for name in ("stromkreis", "stromkreis-meters")}


def test_images_are_small_and_hold_no_pip(images: dict[str, Path]) -> None:
    for name, root in images.items():
        used = subprocess.run(["/usr/bin/du", "-xsm", root], capture_output=True, text=True, check=True)
        megabytes = int(used.stdout.split()[0])
        assert megabytes < MB_MAX + (20 if name == "stromkreis-meters" else 0), (name, megabytes)
        assert not [*root.rglob("pip"), *root.rglob("ensurepip")]
        assert not [*root.glob("opt/stromkreis/lib/python3*/site-packages/pandas")]
        data = [*root.glob("opt/stromkreis/lib/python3*/site-packages/demandlib/bdew/bdew_data/h25.csv")]
        assert bool(data) is (name == "stromkreis-meters")


def test_the_image_says_its_version_as_the_user_that_it_is_made_for(images: dict[str, Path]) -> None:
    container = buildah("from", "--pull-never", f"localhost/stromkreis:{VERSION}")
    try:
        said = buildah("run", "--isolation", "chroot", "--network", "host", container, "--", "stromkreis", "--version")
        user = buildah("run", "--isolation", "chroot", "--network", "host", container, "--", "id", "-u")
    finally:
        buildah("rm", container)
    assert said == f"stromkreis {VERSION}"
    assert user == "10001"


async def test_a_network_runs_from_the_images(images: dict[str, Path]) -> None:
    with tempfile.TemporaryDirectory(prefix="stromkreis-images-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        async with run_cluster(laboratory(3), directory, images=images) as cluster:
            await cluster.until_settled(SETTLED_S)
            await Trial(cluster, 3 * EACH).until_whole(-1, 3 * EACH)
            page = await cluster.fetch(f"{COORDINATOR}-0", 7380, "/")
            assert b"plotly.min.js" in page
            assert b"stromkreis_node" in await cluster.fetch(f"{GATEWAYS}-0", 7390, "/metrics")
        assert audit(cluster).is_exact
