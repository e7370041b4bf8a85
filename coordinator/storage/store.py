"""All repositories of one coordinator over one database, whose schema is brought up to date when it is opened."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from coordinator.storage.accounts import AccountRepository
from coordinator.storage.audit import AuditRepository
from coordinator.storage.bills import BillRepository
from coordinator.storage.certificates import CertificateRepository
from coordinator.storage.deliveries import DeliveryRepository
from coordinator.storage.engine import Database, fault_of
from coordinator.storage.enrolment_log import EnrolmentLogRepository
from coordinator.storage.epochs import EpochRepository
from coordinator.storage.firmware import FirmwareRepository
from coordinator.storage.gateways import GatewayRepository
from coordinator.storage.misbehaviour import MisbehaviourRepository
from coordinator.storage.profile_sets import ProfileSetRepository
from coordinator.storage.range_checks import RangeCheckRepository
from coordinator.storage.rounds import RoundRepository
from coordinator.storage.schema import upgrade_database
from coordinator.storage.tariffs import TariffRepository
from coordinator.storage.totals import TotalRepository
from protocol.errors import StromkreisError


class Store:
    """Opens a database and makes its repositories; an owner gets the one that is its own."""

    def __init__(self, url: str) -> None:
        """
        `url` is an SQLAlchemy URL (`sqlite:///path`, `postgresql+psycopg://...`); a new database gets its tables.

        Raises StromkreisError where it cannot be opened, or where its schema is newer than this program's.
        """
        self.database = Database(url)
        try:
            upgrade_database(self.database)
        except SQLAlchemyError as error:
            self.close()
            raise StromkreisError(f"{self.database.name}: the database cannot be opened ({fault_of(error)})") from error
        except StromkreisError:
            self.close()
            raise
        self._make_repositories()

    def fenced(self, fence: Callable[[Connection], None]) -> Store:
        """The repositories over the same connections; `fence` begins each writing transaction."""
        made = Store.__new__(Store)
        made.database = self.database.fenced(fence)
        made._make_repositories()
        return made

    def _make_repositories(self) -> None:
        self.epochs = EpochRepository(self.database)
        self.rounds = RoundRepository(self.database)
        self.range_checks = RangeCheckRepository(self.database)
        self.totals = TotalRepository(self.database)
        self.gateways = GatewayRepository(self.database)
        self.certificates = CertificateRepository(self.database)
        self.enrolment_log = EnrolmentLogRepository(self.database)
        self.misbehaviour = MisbehaviourRepository(self.database)
        self.deliveries = DeliveryRepository(self.database)
        self.profile_sets = ProfileSetRepository(self.database)
        self.firmware = FirmwareRepository(self.database)
        self.accounts = AccountRepository(self.database)
        self.audit = AuditRepository(self.database)
        self.tariffs = TariffRepository(self.database)
        self.bills = BillRepository(self.database)

    def close(self) -> None:
        """Give all connections back."""
        self.database.close()
