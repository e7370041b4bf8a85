"""What a question with wrong proofs costs the administrator."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.gwa import query_proofs
from coordinator.gwa.query_proofs import QueryProofs
from coordinator.storage.gateways import GatewayStatus

NOW_MS = 1_000_000


class Directory:
    """Every gateway is enrolled, with two signature certificates."""

    def some(self, names: list[str]) -> dict[str, Any]:
        return {each: SimpleNamespace(status=GatewayStatus.ACTIVE, enrolled_ms=0) for each in names}

    def signers(self, gateway: str, _enrolled_ms: int) -> list[Any]:
        return [SimpleNamespace(certificate=f"{gateway}{at}".encode()) for at in range(2)]


def test_a_question_of_wrong_proofs_costs_few_signature_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bytes] = []

    def holds(certificate: bytes, _text: bytes, _signature: bytes) -> bool:
        checked.append(certificate)
        return certificate == b"HONEST0"

    monkeypatch.setattr(query_proofs, "_holds", holds)
    directory: Any = Directory()
    proofs = QueryProofs(directory, directory)
    proof = f"{NOW_MS}.{'A' * 16}"
    asked = {"HONEST": proof} | {f"ESTK{each:010}": proof for each in range(400)}
    assert set(proofs.check_all(asked, NOW_MS)) == asked.keys() - {"HONEST"}
    assert len(checked) <= 20
    assert proofs.check_all({"HONEST": proof}, NOW_MS) == {}
