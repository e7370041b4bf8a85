"""
The coordinator's tables: what the operator may know, and the one place that decides how a round ended.

`ring_rounds` has one row for each round of a ring that ended; its primary key is the arbiter of section 5 of the
protocol ("ends as opened with one total or as void, once").  A total is a BLOB of signed 64-bit words, little-endian,
in the order of the epoch's schema: all words of a round are written and read together, and SQL sums would overflow
where ours are exact.  Times are integers (milliseconds since 1970 UTC) because SQLite has no time type.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

metadata = MetaData()

tokens = Table(
    "tokens",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),  # SHA-256: the token itself is shown once and kept nowhere
    Column("label", String(80), nullable=False),
    Column("area", String(64)),  # None: good for any area
    Column("uses_total", Integer, nullable=False),
    Column("uses_left", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    CheckConstraint("uses_left >= 0 AND uses_left <= uses_total", name="token_uses"),
)

gateways = Table(
    "gateways",
    metadata,
    Column("gateway_id", String(14), primary_key=True),
    Column("area", String(64), nullable=False, index=True),
    Column("certificate", LargeBinary, nullable=False),  # DER
    Column("key_digest", LargeBinary(32), nullable=False, unique=True),  # SHA-256 of SubjectPublicKeyInfo
    Column("curve_key", LargeBinary(32), nullable=False, unique=True),
    Column("status", String(8), nullable=False),
    Column("enrolled_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Column("token", LargeBinary(32), ForeignKey("tokens.digest")),
    CheckConstraint("status IN ('active', 'revoked')", name="gateway_status"),
)

epochs = Table(
    "epochs",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("schema", JSON, nullable=False),
    Column("period_s", Integer, nullable=False),  # metering interval
    Column("rounds", Integer, nullable=False),
    Column("first_interval_ms", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

rings = Table(
    "rings",
    metadata,
    Column("epoch", BigInteger, ForeignKey("epochs.epoch"), primary_key=True),
    Column("ring", Integer, primary_key=True, autoincrement=False),
    Column("area", String(64), nullable=False, index=True),
    Column("members", JSON, nullable=False),  # gateway ids in position order
)

ring_rounds = Table(
    "ring_rounds",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("ring", Integer, primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("state", String(8), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("head", Integer, nullable=False),  # ring position
    Column("roster", LargeBinary),  # bitmap, bit i of byte i//8 from the least significant, None when void
    Column("present", Integer, nullable=False),
    Column("expected", Integer, nullable=False),
    Column("total", LargeBinary),
    Column("interval_ms", BigInteger, nullable=False),  # start of the metering interval
    Column("ended_ms", BigInteger, nullable=False),
    Column("latency_us", BigInteger, nullable=False),
    Column("void_reason", String(64)),
    ForeignKeyConstraint(["epoch", "ring"], ["rings.epoch", "rings.ring"]),
    CheckConstraint(
        "(state = 'opened' AND total IS NOT NULL AND roster IS NOT NULL AND void_reason IS NULL)"
        " OR (state = 'void' AND total IS NULL AND roster IS NULL AND void_reason IS NOT NULL)",
        name="round_state",
    ),
    Index("ring_rounds_by_interval", "interval_ms"),
    Index("ring_rounds_newest", "epoch", "round", "ring"),
)
