"""What all tests share: the switch that renews golden files, which need data beside the repository, SoftHSM tokens."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

BESIDE = Path(__file__).parents[1] / "../shared"
_SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
_TOKENS = 32  # SoftHSM makes its slots when it is loaded, once a process: all tokens are there before
_PIN = "482713"


def pytest_configure() -> None:
    """A shell has what it runs in its background ignore SIGINT, which programs under test would inherit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without the data beside the repository its tests are deselected: each codec has vectors of its own here."""
    if BESIDE.is_dir():
        return
    absent = [item for item in items if item.get_closest_marker("beside_repository")]
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if not item.get_closest_marker("beside_repository")]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--renew-golden", action="store_true", help="write the golden files anew instead of comparing")


@dataclass(frozen=True)
class Token:
    """An empty PKCS#11 token of SoftHSM."""

    library: Path
    label: str
    pin: str


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[Token]]:
    """Tokens that nobody has used yet."""
    tool = shutil.which("softhsm2-util")
    if tool is None or not _SOFTHSM.exists():
        if "CI" in os.environ:
            pytest.fail("softhsm2 is not installed")
        pytest.skip("softhsm2 is not installed")
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    configuration = folder / "softhsm2.conf"
    configuration.write_text(
        f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(configuration)
    made = [Token(_SOFTHSM, f"stromkreis {number}", _PIN) for number in range(_TOKENS)]
    for each in made:
        options = ("--init-token", "--free", "--label", each.label, "--so-pin", "99887766", "--pin", each.pin)
        subprocess.run([tool, *options], capture_output=True, timeout=60, check=True)
    yield iter(made)
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before


@pytest.fixture
def token(tokens: Iterator[Token]) -> Token:
    """A token that no other test has used."""
    return next(tokens)
