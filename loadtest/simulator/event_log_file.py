"""The event log of one machine as a file: strict reading of what `Machine.bug_report` gives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadtest.ring import RingSize
from protocol import wire
from protocol.dcnet.machines.event_log import VERSION
from protocol.dcnet.setup.rings import Timing
from protocol.errors import StromkreisError

Row = dict[str, Any]
_FILE_BYTES_MAX = 16 << 20


class ReplayError(StromkreisError):
    """The file is no event log that can be played."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Timing(_Strict):
    first_open_s: float
    period_s: float = Field(gt=0)
    gather_s: float
    share_s: float
    confirm_s: float
    reveal_s: float
    silent_s: float
    void_s: float


_Nonce = Annotated[str, Field(pattern=f"^[0-9a-f]{{{2 * wire.NONCE_SIZE}}}$")]


class _Ring(_Strict):
    n: int = Field(ge=3, le=wire.MAX_RING)
    k: int = Field(ge=2, le=wire.MAX_RING)
    t: int = Field(ge=1)
    t_c: int = Field(ge=1)
    k_min: int = Field(ge=1)
    n_min: int = Field(ge=1)
    words: int = Field(ge=1, le=wire.MAX_SLOTS)
    committed: tuple[int, ...] = ()
    rounds: int = Field(ge=1, le=wire.MAX_ROUNDS)
    nonces: tuple[_Nonce, ...]
    timing: _Timing


class Log(_Strict):
    """An event log as `Machine.bug_report` writes it."""

    event_log: Literal[1]
    machine: Literal["member", "head", "ledger"]
    position: int
    ring: _Ring
    start: dict[str, Any]
    dropped: int = Field(ge=0)
    events: tuple[Row, ...]

    @property
    def size(self) -> RingSize:
        """The ring's numbers."""
        numbers = self.ring.model_dump(exclude={"timing", "nonces"})
        return RingSize(**numbers)

    @property
    def nonces(self) -> list[bytes]:
        """The members' first nonces, by position."""
        return [bytes.fromhex(each) for each in self.ring.nonces]

    @property
    def timing(self) -> Timing:
        """The ring's waits."""
        return Timing(**self.ring.timing.model_dump())


assert VERSION == 1  # noqa: S101 - as `Log.event_log` says


def read_log(path: Path) -> Log:
    """Read an event log.  Raises ReplayError, with what was expected, where the file is none."""
    try:
        if path.stat().st_size > _FILE_BYTES_MAX:
            raise ReplayError(f"{path}: larger than {_FILE_BYTES_MAX >> 20} MiB; expected the event log of one machine")
        return Log.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ReplayError(
            f"{path}: cannot be read ({error.strerror}); expected the event log of a bug report"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise ReplayError(f"{path}: no event log: {where}: {first['msg']}") from None
