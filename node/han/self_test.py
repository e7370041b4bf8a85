"""
The self-test: what the gateway can find out about itself, without a value in it.

Clock, store, keys, certificates, meters and the newest signed entries of the calibration log; each check says what it
saw in a sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from node.han.facts import GatewayFacts, Reader
from node.han.models import Check, CheckName, SelfTest
from node.metering.history import newest_values
from node.storage.errors import SealError, StoreError
from node.storage.repositories.gateway_logs import GatewayLogReader
from node.storage.repositories.metering_log import MeteringLogReader
from protocol import pki
from protocol.errors import LocalProtocolError
from protocol.logs.chain import FIRST
from protocol.logs.events import Log

PAUSE_S: Final = 60.0
"""Between two self-tests."""
_SILENT_PERIODS: Final = 3
_ENTRIES: Final = 50


def run_self_test(facts: GatewayFacts, reader: Reader) -> SelfTest:
    """All checks; in a worker thread, since it reads the store."""
    kinds: tuple[tuple[CheckName, Callable[[], tuple[bool, str]]], ...] = (
        ("clock", lambda: _clock(facts)),
        ("store", lambda: _store(facts, reader)),
        ("keys", lambda: _keys(facts)),
        ("certificates", lambda: _certificates(facts)),
        ("meters", lambda: _meters(facts, reader)),
        ("calibration_log", lambda: _calibration_log(facts, reader)),
    )
    checks = [
        Check(name=name, is_passed=is_passed, detail=detail)
        for name, check in kinds
        for is_passed, detail in [_guarded(check)]
    ]
    return SelfTest(
        at=datetime.fromtimestamp(facts.clock(), UTC), is_passed=all(each.is_passed for each in checks),
        checks=tuple(checks),
    )  # fmt: skip


def _guarded(check: Callable[[], tuple[bool, str]]) -> tuple[bool, str]:
    try:
        return check()
    except (StoreError, SealError, LocalProtocolError) as error:
        return False, f"it could not be checked ({type(error).__name__})"


def _clock(facts: GatewayFacts) -> tuple[bool, str]:
    is_good = facts.is_time_good()
    return is_good, "right enough for billing" if is_good else "not right enough for billing"


def _store(facts: GatewayFacts, reader: Reader) -> tuple[bool, str]:
    GatewayLogReader(reader.read, reader.cipher).newest(facts.identity, Log.SYSTEM)
    return True, "the newest entry of the system log opens"


def _keys(facts: GatewayFacts) -> tuple[bool, str]:
    text = b"stromkreis self-test\0" + facts.module.random(16)
    is_right = _is_signed(facts, facts.module.sign(text), text)
    return is_right, "a signature holds" if is_right else "a signature does not hold"


def _certificates(facts: GatewayFacts) -> tuple[bool, str]:
    ends = [x509.load_der_x509_certificate(each).not_valid_after_utc for each in facts.module.certificates]
    if not ends:
        return False, "the gateway is not enrolled"
    return min(ends).timestamp() > facts.clock(), f"the first one ends on {min(ends):%Y-%m-%d}"


def _meters(facts: GatewayFacts, reader: Reader) -> tuple[bool, str]:
    metering, grid = MeteringLogReader(reader.read, reader.cipher), facts.grid()
    now_s = facts.clock()
    silent_s = _SILENT_PERIODS * (900.0 if grid is None else grid.period_s)
    speaking = 0
    for meter in facts.meters:
        heard = [each.received_ms for each in newest_values(metering, facts.identity, meter.device, int(now_s * 1e6))]
        speaking += bool(heard) and now_s - max(heard) / 1000 < silent_s
    return speaking == len(facts.meters), f"{speaking} of {len(facts.meters)} have spoken in the last {silent_s:g} s"


def _calibration_log(facts: GatewayFacts, reader: Reader) -> tuple[bool, str]:
    logs = GatewayLogReader(reader.read, reader.cipher)
    newest = logs.newest_number(facts.identity, Log.CALIBRATION)
    entries = logs.entries(facts.identity, Log.CALIBRATION, after=max(0, newest - _ENTRIES), limit=_ENTRIES)
    previous = FIRST if newest <= _ENTRIES else None
    for each in entries:
        if previous is not None and each.previous != previous:
            return False, f"entry {each.number} does not follow the one before it"
        previous = each.hash
    return True, f"the newest {len(entries)} entries follow one another"


def _is_signed(facts: GatewayFacts, signature: bytes, text: bytes) -> bool:
    if facts.module.certificate is None:
        return False
    public_key = x509.load_der_x509_certificate(facts.module.certificate).public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        return False
    try:
        public_key.verify(signature, text, ec.ECDSA(pki.signature_hash(public_key)))
    except InvalidSignature:
        return False
    return True
