"""
Whose fault is it?  Every failure is one of three kinds.

A peer's bytes can only ever raise `RemoteProtocolError`: the driver closes that peer's connection, counts it
and carries on.  Calling a machine in a way its state forbids is `LocalProtocolError`: a defect of ours.  Where
neither fits (our own state contradicts itself) it is `InvariantError`, and the process must not go on guessing.
None of the texts may carry a reading, a key or a mask: say what was wrong, where, and what was expected.
"""


class StromkreisError(Exception):
    """The root of what this project raises on purpose."""


class LocalProtocolError(StromkreisError):
    """We called a protocol object in a way that its state does not allow."""


class RemoteProtocolError(StromkreisError):
    """
    A peer (gateway, head, coordinator, meter) sent what it must not.

    `reason` is a short snake_case code, fit for a metric label; `offset` is the byte where it was seen, if known.
    """

    def __init__(self, reason: str, detail: str = "", *, offset: int | None = None) -> None:
        self.reason = reason
        self.detail = detail
        self.offset = offset
        where = "" if offset is None else f" at byte {offset}"
        super().__init__(f"{reason}{where}: {detail}" if detail else f"{reason}{where}")


class InvariantError(StromkreisError):
    """Our own state contradicts itself."""
