"""
The schemas of the node's SQLite files: numbered steps, each from one `PRAGMA user_version` to the next.

A step and its new version number are one transaction, so a process that is killed in between finds the step done or
not begun.  Steps are never changed after a release: what comes later is a step of its own.  Version 0 is an empty file,
or one from the time before versions, whose tables step 1 takes over as they are.

To add one: a module `stepNNN_what.py` with `upgrade(connection, cipher)`, at the end of `STEPS`; for the file of epoch
seeds `seedsNNN_what.py` with `upgrade(connection)`, at the end of `EPOCH_SEED_STEPS`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from node.storage.cipher import Cipher
from node.storage.errors import SchemaError
from node.storage.migrations import (
    seeds001_unversioned,
    seeds002_epoch_ends,
    seeds003_ends_of_old_seeds,
    step001_unversioned,
    step002_sealed,
    step003_metering_log,
    step004_blindings,
    step005_carried_energy,
    step006_gateway_logs,
    step007_attendance,
    step008_ring_seats,
    step009_beacon,
    step010_price_sheets,
    step011_profile_sets,
    step012_use_cases,
    step013_han,
    step014_enrolment_log,
    step015_account_basis,
)

Step = Callable[[sqlite3.Connection], None]

STEPS: Final[tuple[Callable[..., None], ...]] = (
    step001_unversioned.upgrade,
    step002_sealed.upgrade,
    step003_metering_log.upgrade,
    step004_blindings.upgrade,
    step005_carried_energy.upgrade,
    step006_gateway_logs.upgrade,
    step007_attendance.upgrade,
    step008_ring_seats.upgrade,
    step009_beacon.upgrade,
    step010_price_sheets.upgrade,
    step011_profile_sets.upgrade,
    step012_use_cases.upgrade,
    step013_han.upgrade,
    step014_enrolment_log.upgrade,
    step015_account_basis.upgrade,
)
"""Those of the node's store, where some need its cipher: see `store_steps`."""

EPOCH_SEED_STEPS: Final[tuple[Step, ...]] = (
    seeds001_unversioned.upgrade,
    seeds002_epoch_ends.upgrade,
    seeds003_ends_of_old_seeds.upgrade,
)
"""Those of the file of epoch seeds."""


def store_steps(cipher: Cipher, blinding_key: step004_blindings.BlindingKey | None) -> tuple[Step, ...]:
    """The steps of a store that is sealed by `cipher`."""
    special = {step004_blindings.upgrade: {"blinding_key": blinding_key}}
    return tuple(partial(step, cipher=cipher, **special.get(step, {})) for step in STEPS)


def check_version(connection: sqlite3.Connection, known: int) -> int:
    """
    Return the schema version of an open store; 0 is an empty file, or one from the time before versions.

    Raises SchemaError where it is above `known`: a later release has written the file.
    """
    ((found,),) = connection.execute("PRAGMA user_version")
    if found > known:
        raise SchemaError(
            f"its schema has version {found}, this release knows versions up to {known}; run the release that"
            " wrote it, or a later one; the file is as it was"
        )
    return int(found)


def migrate(connection: sqlite3.Connection, steps: Sequence[Step]) -> int:
    """
    Bring an open store to the newest version; return the one that it had.

    The connection is in autocommit mode.  Raises SchemaError, and sqlite3.Error of a step: the store then stays at the
    last version that was reached.
    """
    found = check_version(connection, len(steps))
    for number, step in enumerate(steps[found:], found + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            step(connection)
            connection.execute(f"PRAGMA user_version={number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return found
