"""What network emulation refuses on purpose: the text says what was wrong, where, and what to do."""

from __future__ import annotations


class NetemError(Exception):
    """The root of what this package raises on purpose."""


class MissingPrivilegeError(NetemError):
    """The operation needs CAP_NET_ADMIN and CAP_SYS_ADMIN, which this process does not have."""

    def __init__(self, failed: str) -> None:
        super().__init__(
            f"{failed}: this back end needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN): use sudo, or `--backend proxy`, "
            "which needs no privileges"
        )


class MissingToolError(NetemError):
    """A program that the back end calls is not installed."""


class MissingKernelFeatureError(NetemError):
    """The running kernel lacks a queueing discipline, device type or netfilter target."""


class ToolFailedError(NetemError):
    """A program ended with an error that none of the kinds above explains."""


class InvalidDataError(NetemError):
    """A profile, network or scenario is wrong; the text names the file and the key."""

    exit_code = 2
