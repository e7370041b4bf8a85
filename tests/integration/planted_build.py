"""
A build of the program whose gateways contribute 1 Wh too much in some intervals: `python planted_build.py node ...`.

What a load test must find.  Only nodes are patched: the ground truth has the function as it is.
"""

from __future__ import annotations

from protocol.dcnet.discipline import carried_energy

_TENTHS_OF_A_WH = 10
_EVERY = 5  # of the registers that a gateway contributes; the same again in a second attempt
_contribute = carried_energy.contribute


def planted(
    account: carried_energy.EnergyAccount, register: int, interval_s: int, *, length_s: int,
    limit: int = carried_energy.UNLIMITED,
) -> tuple[int, carried_energy.EnergyAccount]:  # fmt: skip
    """One Wh more than what flowed, where the register is a multiple of five."""
    contribution, after = _contribute(account, register, interval_s, length_s=length_s, limit=limit)
    return contribution + (_TENTHS_OF_A_WH if register % _EVERY == 0 else 0), after


if __name__ == "__main__":
    carried_energy.contribute = planted
    from stromkreis.__main__ import main

    main()
