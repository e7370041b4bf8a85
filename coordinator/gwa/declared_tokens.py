"""Enrolment tokens that the configuration declares: each in a file, as an orchestrator puts a secret there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from coordinator.config import DeclaredToken
from coordinator.gwa.enrolment import Directory
from protocol.errors import StromkreisError

log = logging.getLogger(__name__)
LENGTH_MIN = 32
"""Characters: 192 bits, where each is one of 64."""


def declare(directory: Directory, declared: Sequence[DeclaredToken], now: datetime) -> int:
    """
    Have the directory know these tokens; how many were new to it.

    One that it knows is left as it is, with the uses that it has left and revoked where it was revoked.  Raises
    StromkreisError for a file that holds no token.
    """
    made = 0
    for each in declared:
        try:
            token = each.file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StromkreisError(f"{each.file}: cannot be read ({type(error).__name__}); expected a token") from None
        if len(token) < LENGTH_MIN or len(token.split()) != 1:
            raise StromkreisError(
                f"{each.file}: expected one token of {LENGTH_MIN} random characters at least, such as `stk_` and 43 of"
                " base64url"
            )
        is_new = directory.declare_token(
            token, now, label=each.label, uses=each.uses, validity=timedelta(days=each.days), area=each.area
        )
        made += is_new
        if is_new:
            log.info("the token in %s admits %d gateways for %d days", each.file, each.uses, each.days)
    return made
