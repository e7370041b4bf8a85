"""A profile set for the gateway of `han_home`: two consumers, three recipients each."""

from __future__ import annotations

from typing import Any

from node.han.digest import Algorithm, make_verifier
from tests.integration.han_home import ANNA, BEN, GATEWAY, OTHER_POINT, POINT, REALM

RECIPIENTS = (("direct", "Stadtwerke", 7), ("pseudonymous", "Messstelle", 1), ("aggregated", "Verteilnetz", 7))


def profile_document(version: int = 1, **changed: Any) -> dict[str, Any]:
    """As JSON; certificates of recipients are not looked at where a set is read back from the store."""
    timed = {"valid_from": "2026-01-01T00:00:00Z"}
    nobody = "00" * 32
    points = (POINT, OTHER_POINT)
    return {
        "gateway": GATEWAY, "version": version, "issued_at": "2026-11-01T12:00:00Z",
        "meters": [
            timed | {"id": f"m{n}", "device": f"{GATEWAY}/{n}", "protocol": "sml", "registers": ["1-0:1.8.0*255"]}
            for n in range(2)
        ],
        "processing": [
            timed | {
                "id": f"p{n}-{form}", "metering_point": points[n], "obis": "1-0:1.8.0*255",
                "meters": [{"meter": f"m{n}"}],
                "use_case": {"taf": taf}, "billing_period": {"begins": "2026-01-01T00:00:00+01:00", "months": 1},
                "recipients": [{"participant": who, "communication": "w1", "delivery": form}],
            }
            for n in range(2) for form, who, taf in RECIPIENTS
        ],
        "wan": [timed | {
            "id": "w1", "role": "participant", "uri": "https://localhost:7", "tls_certificate": nobody,
            "encryption_certificate": nobody, "signature_certificate": nobody,
        }],
        "han": [
            timed | {
                "id": f"h-{user}", "role": "consumer", "user": user, "metering_points": [points[n]],
                "ha1_sha256": make_verifier(user, REALM, password)[Algorithm.SHA256],
            }
            for n, (user, password) in enumerate((ANNA, BEN))
        ],
    } | changed  # fmt: skip
