"""Table `certificates`: every certificate that was issued to a gateway, for renewal and for revocation lists."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from alembic import op
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """A new table; the signature certificates of the directory are its first rows."""
    table = op.create_table(
        "certificates",
        sa.Column("serial", sa.String(40), primary_key=True),
        sa.Column("gateway_id", sa.String(14), sa.ForeignKey("gateways.gateway_id"), nullable=False, index=True),
        sa.Column("role", sa.String(24), nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("certificate", sa.LargeBinary, nullable=False),
        sa.Column("key_digest", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("issued_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
        sa.Column("revoked_ms", sa.BigInteger),
    )
    known = op.get_bind().execute(sa.text("SELECT gateway_id, certificate, enrolled_ms, revoked_ms FROM gateways"))
    rows = []
    for gateway_id, data, enrolled_ms, revoked_ms in known.all():
        try:
            certificate = x509.load_der_x509_certificate(bytes(data))
        except ValueError:
            continue  # it never was one: no list can name it
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        rows.append(
            {
                "serial": f"{certificate.serial_number:x}", "gateway_id": gateway_id, "role": "gateway signature",
                "sequence": 1, "certificate": bytes(data), "key_digest": hashlib.sha256(key).digest(),
                "issued_ms": enrolled_ms, "expires_ms": round(certificate.not_valid_after_utc.timestamp() * 1000),
                "revoked_ms": revoked_ms,
            }
        )  # fmt: skip
    if rows:
        op.bulk_insert(table, rows)
