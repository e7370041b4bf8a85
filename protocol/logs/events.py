"""
The events of a gateway's logs: number, level, which logs they stand in, and their texts in German and English.

BSI TR-03109-1 knows three logs: the system log for the administrator, a consumer log for each consumer, and the
calibration log ("eichtechnisches Logbuch") for whoever verifies the measurement.  Numbers are ours and keep their
meaning once they were released.  A parameter is a name, a count or a time, never a reading, a key or octets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from string import Formatter

Parameter = str | int


class Log(StrEnum):
    """Whose log."""

    SYSTEM = "system"
    CONSUMER = "consumer"
    CALIBRATION = "calibration"


class Level(StrEnum):
    """How grave (BSI TR-03109-1)."""

    INFO = "I"
    WARNING = "W"
    ERROR = "E"
    FATAL = "F"


class Language(StrEnum):
    """What an entry is shown in."""

    GERMAN = "de"
    ENGLISH = "en"


@dataclass(frozen=True, slots=True)
class EventKind:
    """One kind of event; the texts name its parameters in braces."""

    number: int
    level: Level
    logs: tuple[Log, ...]
    german: str
    english: str

    @property
    def parameters(self) -> frozenset[str]:
        """The names of its parameters."""
        return frozenset(name for _, name, _, _ in Formatter().parse(self.english) if name)


class Event(Enum):
    """All kinds."""

    STARTED = EventKind(
        1001, Level.INFO, (Log.SYSTEM, Log.CALIBRATION),
        "Gateway gestartet, Programmversion {version}", "Gateway started, software version {version}",
    )  # fmt: skip
    STOPPED = EventKind(1002, Level.INFO, (Log.SYSTEM,), "Gateway beendet", "Gateway stopped")
    LEAVING = EventKind(
        1004, Level.INFO, (Log.SYSTEM, Log.CALIBRATION),
        "Das Gateway verlässt das Netz für immer", "The gateway leaves the network for good",
    )  # fmt: skip
    ENTRIES_LOST = EventKind(
        1003, Level.WARNING, (Log.SYSTEM,),
        "{count} Einträge gingen verloren: zu viele auf einmal", "{count} entries were lost: too many at once",
    )  # fmt: skip
    REGISTRATION_PERIOD = EventKind(
        2001, Level.INFO, (Log.SYSTEM, Log.CALIBRATION),
        "Registrierperiode {interval_s} s, Dauer {period_ms} ms",
        "Registration period {interval_s} s, lasting {period_ms} ms",
    )  # fmt: skip
    CLOCK_SET = EventKind(
        2002, Level.INFO, (Log.SYSTEM, Log.CALIBRATION),
        "Uhr gestellt um {offset_ms} ms", "Clock set by {offset_ms} ms",
    )  # fmt: skip
    CLOCK_DEVIATED = EventKind(
        2003, Level.ERROR, (Log.SYSTEM, Log.CALIBRATION),
        "Uhr um {offset_ms} ms falsch, über 3 % der Registrierperiode: Messwerte nicht für die Abrechnung",
        "Clock wrong by {offset_ms} ms, over 3 % of the registration period: values are not for billing",
    )  # fmt: skip
    MEASUREMENT_SUSPENDED = EventKind(
        2004, Level.ERROR, (Log.SYSTEM, Log.CONSUMER, Log.CALIBRATION),
        "Uhr kann um über 3 % der Registrierperiode falsch gehen: Messwerte nicht für die Abrechnung",
        "Clock may be wrong by over 3 % of the registration period: values are not for billing",
    )  # fmt: skip
    MEASUREMENT_RESUMED = EventKind(
        2005, Level.INFO, (Log.SYSTEM, Log.CONSUMER, Log.CALIBRATION),
        "Uhr wieder genau genug: Messwerte für die Abrechnung", "Clock is exact enough again: values are for billing",
    )  # fmt: skip
    PROFILES_TAKEN = EventKind(
        2101, Level.INFO, (Log.SYSTEM, Log.CONSUMER, Log.CALIBRATION),
        "Profile der Version {version} in Kraft, Prüfsumme {digest}",
        "Profiles of version {version} in force, digest {digest}",
    )  # fmt: skip
    PROFILES_REFUSED = EventKind(
        2102, Level.WARNING, (Log.SYSTEM,),
        "Profile der Version {version} abgelehnt: {reason}", "Profiles of version {version} refused: {reason}",
    )  # fmt: skip
    CONTRIBUTIONS_BEGUN = EventKind(
        2103, Level.INFO, (Log.SYSTEM, Log.CONSUMER),
        "Beiträge zu Summen des Netzgebiets {area} nach Profilen der Version {version}",
        "Contributions to totals of grid area {area} by profiles of version {version}",
    )  # fmt: skip
    CONTRIBUTIONS_ENDED = EventKind(
        2104, Level.WARNING, (Log.SYSTEM, Log.CONSUMER),
        "Keine Beiträge zu Summen des Netzgebiets {area} ab der nächsten Epoche (Profile {version}): {reason}",
        "No contributions to totals of grid area {area} from the next epoch on (profiles {version}): {reason}",
    )  # fmt: skip
    DELIVERED = EventKind(
        4101, Level.INFO, (Log.SYSTEM, Log.CONSUMER),
        "Werte des Profils {profile} ab {start} an {participant} geliefert ({delivery})",
        "Values of profile {profile} from {start} delivered to {participant} ({delivery})",
    )  # fmt: skip
    DELIVERY_WITHHELD = EventKind(
        4102, Level.WARNING, (Log.SYSTEM, Log.CONSUMER),
        "Werte des Profils {profile} ab {start} an {participant} zurückgehalten: {reason}",
        "Values of profile {profile} from {start} to {participant} withheld: {reason}",
    )  # fmt: skip
    LOGIN_FAILED = EventKind(
        2201, Level.WARNING, (Log.SYSTEM, Log.CONSUMER),
        "{count} Anmeldungen als {user} mit falschem Passwort", "{count} log-ins as {user} with a wrong password",
    )  # fmt: skip
    PASSWORD_SET = EventKind(
        2202, Level.INFO, (Log.SYSTEM, Log.CONSUMER),
        "Passwort von {user} geändert", "Password of {user} changed",
    )  # fmt: skip
    SELF_TEST = EventKind(
        2203, Level.INFO, (Log.SYSTEM,), "Selbsttest, nicht bestanden: {failed}", "Self-test, not passed: {failed}"
    )
    CLS_CONNECTED = EventKind(
        2301, Level.INFO, (Log.SYSTEM, Log.CONSUMER),
        "Steuerbares System {system} mit {participant} verbunden ({count}-mal)",
        "Controllable system {system} connected with {participant} ({count} times)",
    )  # fmt: skip
    CLS_ENDED = EventKind(
        2302, Level.INFO, (Log.SYSTEM, Log.CONSUMER),
        "{count} Verbindungen von {system} mit {participant} beendet: {reason}, {sent} Byte hin, {received} zurück",
        "{count} connections of {system} with {participant} ended: {reason}, {sent} bytes there, {received} back",
    )  # fmt: skip
    CLS_REFUSED = EventKind(
        2303, Level.WARNING, (Log.SYSTEM,),
        "{count} Verbindungen von {system} abgelehnt: {reason}", "{count} connections of {system} refused: {reason}",
    )  # fmt: skip
    CLS_BEGUN = EventKind(
        2304, Level.INFO, (Log.SYSTEM, Log.CONSUMER),
        "Verbindung von {system} mit {participant} begonnen durch {initiator}: {result}",
        "Connection of {system} with {participant} begun by {initiator}: {result}",
    )  # fmt: skip
    FIRMWARE_STAGED = EventKind(
        2401, Level.INFO, (Log.SYSTEM,),
        "Programmversion {version} geladen und geprüft, Prüfsumme {digest}",
        "Software version {version} loaded and checked, digest {digest}",
    )  # fmt: skip
    FIRMWARE_RUNNING = EventKind(
        2402, Level.INFO, (Log.SYSTEM, Log.CONSUMER, Log.CALIBRATION),
        "Programmversion {version} in Betrieb, Prüfsumme {digest}",
        "Software version {version} in operation, digest {digest}",
    )  # fmt: skip
    FIRMWARE_REFUSED = EventKind(
        2403, Level.WARNING, (Log.SYSTEM,),
        "Programmversion {version} abgelehnt: {reason}", "Software version {version} refused: {reason}",
    )  # fmt: skip
    FIRMWARE_ROLLED_BACK = EventKind(
        2404, Level.ERROR, (Log.SYSTEM, Log.CALIBRATION),
        "Programmversion {version} nicht in Betrieb gegangen ({reason}): die vorherige läuft wieder",
        "Software version {version} did not come up ({reason}): the one before runs again",
    )  # fmt: skip
    METER_FAULT = EventKind(
        3001, Level.WARNING, (Log.SYSTEM,),
        "Störung am LMN: {kind} ({protocol}, {device})", "Fault on the LMN: {kind} ({protocol}, {device})",
    )  # fmt: skip
    BILL_ANSWERED = EventKind(
        4001, Level.INFO, (Log.CONSUMER,),
        "Abrechnung beantwortet: Tarif {tariff}, {count} Intervalle bis {until}",
        "Bill answered: tariff {tariff}, {count} intervals up to {until}",
    )  # fmt: skip
    BILL_DECLINED = EventKind(
        4002, Level.INFO, (Log.CONSUMER,), "Abrechnung abgelehnt: {reason}", "Bill declined: {reason}"
    )


BY_NUMBER = {each.value.number: each.value for each in Event}


def text_of(number: int, parameters: Mapping[str, Parameter], language: Language) -> str:
    """An entry's text; for a number of a later release its number and parameters."""
    kind = BY_NUMBER.get(number)
    if kind is None or kind.parameters - parameters.keys():
        return " ".join((f"{number}:", *(f"{name}={value}" for name, value in sorted(parameters.items()))))
    return (kind.german if language is Language.GERMAN else kind.english).format_map(parameters)
