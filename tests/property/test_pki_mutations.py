"""A certificate or signing request with any byte changed raises the remote kind of error, or is the same one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import pki
from protocol.errors import RemoteProtocolError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROOT_KEY, SUB_KEY, LEAF_KEY = (ec.derive_private_key(n, ec.BrainpoolP256R1()) for n in (11, 22, 33))
VALID: dict[str, Any] = {"not_before": NOW - timedelta(days=1), "not_after": NOW + timedelta(days=1)}
ROOT = pki.issue(
    pki.Role.ROOT, pki.subject("R.CA"), ROOT_KEY.public_key(), issuer=None, issuer_key=ROOT_KEY, serial=1, **VALID
)
SUB = pki.issue(
    pki.Role.SUB_CA, pki.subject("S.CA"), SUB_KEY.public_key(), issuer=ROOT, issuer_key=ROOT_KEY, serial=2, **VALID
)
LEAF = pki.issue(
    pki.Role.GATEWAY_SIGNATURE, pki.subject("ESTK0100000007.SMGW"), LEAF_KEY.public_key(), issuer=SUB,
    issuer_key=SUB_KEY, serial=3, **VALID,
)  # fmt: skip
LEAF_DER, SUB_DER, REQUEST = pki.to_der(LEAF), pki.to_der(SUB), pki.build_request(LEAF_KEY, "ESTK0100000007")


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 3))):
        data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
    data = data[: draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))]
    return bytes(data) + draw(st.binary(max_size=4))


@given(mutated(LEAF_DER))
@settings(max_examples=400)
def test_no_mutated_leaf_stands(data: bytes) -> None:
    if data == LEAF_DER:
        return
    with pytest.raises(RemoteProtocolError):
        pki.verify_chain(pki.load_certificate(data), [SUB], ROOT, NOW)


@given(mutated(SUB_DER))
@settings(max_examples=200)
def test_no_mutated_intermediate_stands(data: bytes) -> None:
    if data == SUB_DER:
        return
    with pytest.raises(RemoteProtocolError):
        pki.verify_chain(LEAF, [pki.load_certificate(data)], ROOT, NOW)


@given(mutated(REQUEST))
@settings(max_examples=400)
def test_no_mutated_request_stands(data: bytes) -> None:
    if data == REQUEST:
        return
    with pytest.raises(RemoteProtocolError):
        pki.check_request(data)


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda tail: LEAF_DER[:40] + tail))
def test_garbage(data: bytes) -> None:
    for read in (pki.load_certificate, pki.check_request):
        with pytest.raises(RemoteProtocolError):
            read(data)
