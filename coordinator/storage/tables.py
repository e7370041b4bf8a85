"""
The coordinator's tables: what the operator may know, and the one place that decides how a round ended.

`ring_rounds` has one row for each round of a ring that ended; its primary key is the arbiter of section 5 of the
protocol ("ends as opened with one total or as void, once").  A total is a BLOB of 64-bit words, little-endian, in the
order of the epoch's schema: all words of a round are written and read together, and SQL sums would overflow where ours
are exact.  Times are numbers since 1970 UTC, as SQLite has no time type: metering intervals in whole seconds, moments
of the wall clock in milliseconds or, where latencies come from them, as doubles.  An epoch belongs to one area.

A change here needs a revision in `coordinator.storage.migrations`; a test holds the two against each other.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
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
    Column("revoked_ms", BigInteger),
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
    Column("released_ms", BigInteger),  # of a revoked one: its id may be enrolled again, with other keys
    Column("left_ms", BigInteger),  # of a revoked one: it has left by its own word, and its id is not given out again
    CheckConstraint("status IN ('active', 'revoked')", name="gateway_status"),
)

certificates = Table(  # every one that was issued to a gateway
    "certificates",
    metadata,
    Column("serial", String(40), primary_key=True),  # hexadecimal
    Column("gateway_id", String(14), ForeignKey("gateways.gateway_id"), nullable=False, index=True),
    Column("role", String(24), nullable=False),
    Column("sequence", Integer, nullable=False),  # of the gateway's triples, from 1
    Column("certificate", LargeBinary, nullable=False),  # DER
    Column("key_digest", LargeBinary(32), nullable=False, unique=True),  # no key is certified twice
    Column("issued_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
)

epochs = Table(
    "epochs",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("area", String(64), nullable=False, index=True),
    Column("schema", LargeBinary, nullable=False),  # canonical JSON
    Column("rounds", Integer, nullable=False),
    Column("interval_start_s", BigInteger, nullable=False),  # of round 0
    Column("interval_s", Integer, nullable=False),
)

epoch_calls = (
    Table(  # the last epoch that an area was called into: no number twice, and while it has no rings its state
        "epoch_calls",
        metadata,
        Column("area", String(64), primary_key=True),
        Column("epoch", BigInteger, nullable=False),
        Column("state", LargeBinary),
    )
)

rings = Table(
    "rings",
    metadata,
    Column("epoch", BigInteger, ForeignKey("epochs.epoch"), primary_key=True),
    Column("ring", Integer, primary_key=True, autoincrement=False),
    Column("size", Integer, nullable=False),
    Column("members", JSON, nullable=False),  # gateway ids in position order
)

ring_rounds = Table(
    "ring_rounds",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("ring", Integer, primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("outcome", String(6), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("term", Integer, nullable=False),
    Column("expected", LargeBinary, nullable=False),  # bitmaps of ring positions, little-endian
    Column("roster", LargeBinary, nullable=False),
    Column("present", Integer, nullable=False),  # positions in the roster
    Column("total", LargeBinary),
    Column("verified", Boolean, nullable=False),
    Column("reason", String(80), nullable=False),
    Column("interval_start_s", BigInteger, nullable=False),
    Column("opened_s", Double, nullable=False),
    Column("ended_s", Double, nullable=False),
    Column("signature", LargeBinary(64)),  # of its RESULT; None in rows of earlier releases
    ForeignKeyConstraint(["epoch", "ring"], ["rings.epoch", "rings.ring"]),
    CheckConstraint(
        "(outcome = 'opened' AND total IS NOT NULL) OR (outcome = 'void' AND total IS NULL AND present = 0)",
        name="round_outcome",
    ),
    Index("ring_rounds_by_interval", "interval_start_s"),
    Index("ring_rounds_newest", "epoch", "round", "ring"),
)

ring_commitments = Table(  # of verified rounds: each roster member's, by position and committed slot, until billed
    "ring_commitments",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("ring", Integer, primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("interval_start_s", BigInteger, nullable=False, index=True),
    Column("commitments", LargeBinary, nullable=False),
    ForeignKeyConstraint(["epoch", "ring", "round"], ["ring_rounds.epoch", "ring_rounds.ring", "ring_rounds.round"]),
)

range_checks = (
    Table(  # proofs that members were drawn for, until they have proved; see coordinator.storage.range_checks
        "range_checks",
        metadata,
        Column("epoch", BigInteger, primary_key=True, autoincrement=False),
        Column("ring", Integer, primary_key=True, autoincrement=False),
        Column("round", Integer, primary_key=True, autoincrement=False),
        Column("position", Integer, primary_key=True, autoincrement=False),
        Column("gateway_id", String(14), nullable=False, index=True),
        Column("interval_start_s", BigInteger, nullable=False, index=True),
        Column("interval_s", Integer, nullable=False),
        Column("fuse_a", Integer, nullable=False),
        Column("epoch_digest", LargeBinary(32), nullable=False),
        Column("slots", LargeBinary, nullable=False),  # index in the schema (16 bits), bits (8) and commitment of each
        Column("owed", Boolean, nullable=False),
        ForeignKeyConstraint(
            ["epoch", "ring", "round"], ["ring_rounds.epoch", "ring_rounds.ring", "ring_rounds.round"]
        ),
    )
)

tariffs = Table(
    "tariffs",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("document", LargeBinary, nullable=False),  # canonical JSON, as published and signed
    Column("signature", LargeBinary, nullable=False),
    Column("certificate", LargeBinary, nullable=False),  # DER, of the key that signed
    Column("published_ms", BigInteger, nullable=False),
)

bills = Table(
    "bills",
    metadata,
    Column("gateway_id", String(14), primary_key=True),
    Column("request", LargeBinary(32), primary_key=True),  # digest over tariff and intervals
    Column("area", String(64), nullable=False, index=True),
    Column("tariff", LargeBinary(32), ForeignKey("tariffs.digest"), nullable=False),
    Column("obis", String(32), nullable=False),
    Column("first_s", BigInteger, nullable=False),  # starts of the first and the last interval
    Column("last_s", BigInteger, nullable=False),
    Column("intervals", LargeBinary, nullable=False),  # bitmap over the tariff's prices
    Column("interval_count", Integer, nullable=False),
    Column("scaler", Integer, nullable=False),  # the amount is amount·10^scaler of the tariff's currency
    Column("status", String(8), nullable=False, index=True),
    Column("amount", String(40)),  # an exact integer: SQL has none of 115 bits
    Column("answer", LargeBinary),  # the gateway's message; of earlier releases the blinding alone
    Column("reason", String(80), nullable=False),
    Column("asked_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Column("energy", String(40)),  # of all intervals, an exact integer at the register's scaler
    Column("register_scaler", Integer),
    Column("quantum_bits", Integer),  # the amount is a multiple of 2^bits; 0: exact
    Column("averaged", Integer),  # intervals whose price is the mean of a block around a spike
    CheckConstraint("status IN ('asked', 'verified', 'refused', 'declined')", name="bill_status"),
)

epoch_states = Table(  # what a restarted coordinator needs to go on with an epoch; deleted when the epoch is over
    "epoch_states",
    metadata,
    Column("epoch", BigInteger, ForeignKey("epochs.epoch"), primary_key=True, autoincrement=False),
    Column("state", LargeBinary, nullable=False),
)

area_totals = Table(  # the sum over an area's rings of one round, as they end; see coordinator.storage.totals
    "area_totals",
    metadata,
    Column("epoch", BigInteger, ForeignKey("epochs.epoch"), primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("area", String(64), nullable=False),
    Column("interval_start_s", BigInteger, nullable=False, index=True),
    Column("enrolled", Integer),  # active gateways of the area when the round's first ring ended; None: not known
    Column("opened", Integer, nullable=False),  # rings, by how they ended
    Column("void", Integer, nullable=False),
    Column("verified", Integer, nullable=False),  # opened rings whose total is verified
    Column("present", Integer, nullable=False),  # gateways
    Column("retries", Integer, nullable=False),
    Column("sums", LargeBinary, nullable=False),  # signed words of 128 bits, little-endian, in the schema's order
    Column("latencies", LargeBinary, nullable=False),  # of opened rounds, unsigned 32 bits each, microseconds
    Index("area_totals_by_area", "area", "interval_start_s"),
)

profile_sets = Table(  # what the administrator has signed for gateways, and what they said of it
    "profile_sets",
    metadata,
    Column("gateway_id", String(14), ForeignKey("gateways.gateway_id"), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False),  # of the canonical JSON
    Column("message", LargeBinary, nullable=False),  # CMS: signed, encrypted to the gateway
    Column("encrypted_to", String(40), nullable=False),  # serial number of the gateway's encryption certificate
    Column("copy", LargeBinary, nullable=False),  # CMS: the same document, encrypted to the administrator
    Column("state", String(8), nullable=False),
    Column("reason", String(500), nullable=False),
    Column("receipt", LargeBinary),  # CMS, signed by the gateway
    Column("issued_ms", BigInteger, nullable=False),
    Column("answered_ms", BigInteger),
    CheckConstraint("state IN ('waiting', 'taken', 'refused')", name="profile_set_state"),
)

firmware_images = Table(  # releases that the administrator may order gateways to run
    "firmware_images",
    metadata,
    Column("version", String(17), primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("manifest", LargeBinary, nullable=False),  # its canonical JSON
    Column("image", LargeBinary, nullable=False),  # a wheel
    Column("created_ms", BigInteger, nullable=False),
)

firmware_orders = Table(  # which release each gateway is to run, and what it said
    "firmware_orders",
    metadata,
    Column("gateway_id", String(14), ForeignKey("gateways.gateway_id"), primary_key=True),
    Column("version", String(17), ForeignKey("firmware_images.version"), nullable=False, index=True),
    Column("message", LargeBinary, nullable=False),  # CMS: signed by the administrator
    Column("state", String(12), nullable=False),
    Column("reason", String(500), nullable=False),
    Column("receipt", LargeBinary),  # CMS, signed by the gateway
    Column("issued_ms", BigInteger, nullable=False),
    Column("answered_ms", BigInteger),
    CheckConstraint("state IN ('waiting', 'staged', 'running', 'refused', 'rolled_back')", name="firmware_order_state"),
)

deliveries = Table(  # what gateways delivered to the market participant; see coordinator.storage.deliveries
    "deliveries",
    metadata,
    Column("delivery_id", String(32), primary_key=True),
    Column("gateway_id", String(14)),  # None: through the administrator
    Column("state", String(8), nullable=False, index=True),
    Column("reason", String(80), nullable=False),
    Column("message", LargeBinary, nullable=False),  # CMS, encrypted to the market participant
    Column("sender", String(66)),  # from here on of what is in it, None while nobody has opened it
    Column("profile", String(64)),
    Column("taf", Integer),
    Column("start_s", BigInteger, index=True),
    Column("end_s", BigInteger),
    Column("is_complete", Boolean),
    Column("missing", Integer),  # registration times of a load profile without a valid value
    Column("received_ms", BigInteger, nullable=False),
    CheckConstraint("state IN ('new', 'stored', 'refused')", name="delivery_state"),
)

misbehaviour_reports = Table(  # what gateways say of each other, one gateway's word each
    "misbehaviour_reports",
    metadata,
    Column("reporter", String(14), primary_key=True),
    Column("reported", String(14), primary_key=True),
    Column("misbehaviour", String(16), primary_key=True),
    Column("area", String(64), nullable=False),
    Column("epochs", Integer, nullable=False),  # in how many it was said
    Column("epoch", BigInteger, nullable=False),  # where it was said last
    Column("ring", Integer, nullable=False),
    Column("round", Integer, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False, index=True),
)

log_entries = Table(  # the enrolment log, in order; only ever added to
    "log_entries",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Integer, nullable=False),
    Column("subject", String(64), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("reference", String(64), nullable=False),  # what it is about: certificate serial, gateway id, EPOCH/RING
    Index("log_entries_by_reference", "kind", "reference", unique=True),
    Index("log_entries_by_digest", "digest"),
)

log_heads = Table(  # tree heads as they were signed: the newest is the one of most entries
    "log_heads",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("root", LargeBinary(32), nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("signature", LargeBinary(64), nullable=False),
)

ring_histories = Table(  # how all rounds of a ring ended, for the enrolment log
    "ring_histories",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("ring", Integer, primary_key=True, autoincrement=False),
    Column("leaf", LargeBinary(32), nullable=False),
)

accounts = Table(  # who may use REST and commands; see coordinator.gwa.accounts
    "accounts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("password", String(128), nullable=False),  # Argon2id, with its salt and costs
    Column("created_ms", BigInteger, nullable=False),
    Column("disabled_ms", BigInteger),
    Column("subject", String(64), unique=True, index=True),  # at the OpenID provider; None: it has a password
    CheckConstraint("role IN ('viewer', 'operator', 'administrator')", name="account_role"),
)

account_sessions = Table(  # who has logged in
    "account_sessions",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),  # SHA-256 of the token
    Column("name", String(64), ForeignKey("accounts.name"), nullable=False, index=True),
    Column("until_ms", BigInteger, nullable=False, index=True),
)

audit_log = Table(  # what accounts did, in order; triggers keep everybody from changing a row
    "audit_log",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("account", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("address", String(64), nullable=False),
    Column("previous", LargeBinary(32), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
)

leases = Table(  # which process is the ring service of an area; see coordinator.storage.lease
    "leases",
    metadata,
    Column("area", String(64), primary_key=True),
    Column("holder", BigInteger, nullable=False),  # a random number of the process; 0: given back
    Column("name", String(80), nullable=False),  # of the process, for people
    Column("term", BigInteger, nullable=False),  # grows with every change of hands
    Column("beat", BigInteger, nullable=False),  # counted up by the holder
    Column("numbers_end", BigInteger, nullable=False),  # above the epoch numbers that the holder has reserved
    Index("leases_by_holder", "area", "holder", unique=True),  # makes holder a column that FOR KEY SHARE protects
)
