"""
The self-test: what the gateway can find out about itself, without a value in it.

Clock, store, keys, certificates, meters and the newest signed entries of the calibration log; each check says what it
saw in a sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

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


class _Outcome(NamedTuple):
    is_passed: bool
    german: str
    english: str


def run_self_test(facts: GatewayFacts, reader: Reader) -> SelfTest:
    """All checks; in a worker thread, since it reads the store."""
    kinds: tuple[tuple[CheckName, Callable[[], _Outcome]], ...] = (
        ("clock", lambda: _clock(facts)),
        ("store", lambda: _store(facts, reader)),
        ("keys", lambda: _keys(facts)),
        ("certificates", lambda: _certificates(facts)),
        ("meters", lambda: _meters(facts, reader)),
        ("calibration_log", lambda: _calibration_log(facts, reader)),
    )
    outcomes = [(name, _guarded(check)) for name, check in kinds]
    checks = [
        Check(name=name, is_passed=each.is_passed, german=each.german, english=each.english) for name, each in outcomes
    ]
    return SelfTest(
        at=datetime.fromtimestamp(facts.clock(), UTC), is_passed=all(each.is_passed for each in checks),
        checks=tuple(checks),
    )  # fmt: skip


def _guarded(check: Callable[[], _Outcome]) -> _Outcome:
    try:
        return check()
    except (StoreError, SealError, LocalProtocolError) as error:
        kind = type(error).__name__
        return _Outcome(False, f"nicht prüfbar ({kind})", f"it could not be checked ({kind})")


def _clock(facts: GatewayFacts) -> _Outcome:
    if facts.is_time_good():
        return _Outcome(True, "genau genug für die Abrechnung", "right enough for billing")
    return _Outcome(False, "nicht genau genug für die Abrechnung", "not right enough for billing")


def _store(facts: GatewayFacts, reader: Reader) -> _Outcome:
    GatewayLogReader(reader.read, reader.cipher).newest(facts.identity, Log.SYSTEM)
    return _Outcome(
        True, "der neueste Eintrag des Systemlogs ist lesbar", "the newest entry of the system log opens"
    )  # fmt: skip


def _keys(facts: GatewayFacts) -> _Outcome:
    text = b"stromkreis self-test\0" + facts.module.random(16)
    if _is_signed(facts, facts.module.sign(text), text):
        return _Outcome(True, "eine Probesignatur ist gültig", "a signature made for this holds")
    return _Outcome(False, "eine Probesignatur ist ungültig", "a signature made for this does not hold")


def _certificates(facts: GatewayFacts) -> _Outcome:
    ends = [x509.load_der_x509_certificate(each).not_valid_after_utc for each in facts.module.certificates]
    if not ends:
        return _Outcome(False, "das Gateway hat keine", "the gateway has none")
    is_valid = min(ends).timestamp() > facts.clock()
    return _Outcome(
        is_valid, f"das erste läuft am {min(ends):%d.%m.%Y} ab", f"the first one ends on {min(ends):%Y-%m-%d}"
    )  # fmt: skip


def _meters(facts: GatewayFacts, reader: Reader) -> _Outcome:
    metering, grid = MeteringLogReader(reader.read, reader.cipher), facts.grid()
    now_s = facts.clock()
    silent_s = _SILENT_PERIODS * (900.0 if grid is None else grid.period_s)
    speaking, count = 0, len(facts.meters)
    for meter in facts.meters:
        heard = [each.received_ms for each in newest_values(metering, facts.identity, meter.device, int(now_s * 1e6))]
        speaking += bool(heard) and now_s - max(heard) / 1000 < silent_s
    return _Outcome(
        speaking == count, f"{speaking} von {count} haben sich in {silent_s:g} s gemeldet",
        f"{speaking} of {count} have spoken in the last {silent_s:g} s",
    )  # fmt: skip


def _calibration_log(facts: GatewayFacts, reader: Reader) -> _Outcome:
    logs = GatewayLogReader(reader.read, reader.cipher)
    newest = logs.newest_number(facts.identity, Log.CALIBRATION)
    entries = logs.entries(facts.identity, Log.CALIBRATION, after=max(0, newest - _ENTRIES), limit=_ENTRIES)
    previous = FIRST if newest <= _ENTRIES else None
    for each in entries:
        if previous is not None and each.previous != previous:
            return _Outcome(
                False, f"Eintrag {each.number} folgt nicht auf den vorigen",
                f"entry {each.number} does not follow the one before it",
            )  # fmt: skip
        previous = each.hash
    return _Outcome(
        True, f"die neuesten {len(entries)} Einträge folgen aufeinander",
        f"the newest {len(entries)} entries follow one another",
    )  # fmt: skip


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
