"""What a node watches beside its gateways: the age of carried energy, the coordinator's names, the machine's clock."""

from __future__ import annotations

import math
import socket
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock

from node.carried_age import CarriedAge
from node.name_lookups import LOOK_S, names_of, watch_names
from protocol.link import kernel_clock


@dataclass
class Carrier:
    is_carrying: bool = False


def test_the_oldest_carried_energy_counts_from_when_it_is_seen() -> None:
    now_s, fleet = [100.0], [Carrier(), Carrier(), Carrier()]
    age = CarriedAge(lambda: now_s[0])
    assert age.oldest_s(fleet) == 0.0
    fleet[1].is_carrying = True
    assert age.oldest_s(fleet) == 0.0
    now_s[0] += 60.0
    fleet[2].is_carrying = True
    assert age.oldest_s(fleet) == 60.0
    now_s[0] += 60.0
    fleet[1].is_carrying = False
    assert age.oldest_s(fleet) == 60.0
    fleet[1].is_carrying = True  # other energy than before
    now_s[0] += 5.0
    assert age.oldest_s(fleet) == 65.0


def test_addresses_are_no_names() -> None:
    addresses = [
        "https://coordinator.example:7381",
        "tcp://rings.example:7300",
        "tcp://10.0.0.7:7300",
        "https://[::1]:1",
    ]
    assert names_of([*addresses, "tcp://coordinator.example:7300"]) == ["coordinator.example", "rings.example"]


async def test_each_name_is_looked_up_again_and_again(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    mock_clock.autojump_threshold = 0
    known = {"here.example": True, "gone.example": False}
    asked: list[str] = []

    async def getaddrinfo(name: str, port: None, type: int) -> list[int]:
        assert (port, type) == (None, socket.SOCK_STREAM)
        asked.append(name)
        if name == "slow.example":
            await trio.sleep_forever()
        if not known[name]:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [1]

    monkeypatch.setattr("trio.socket.getaddrinfo", getaddrinfo)
    heard: list[bool] = []
    with trio.move_on_after(LOOK_S * 2 + 30):
        await watch_names(["gone.example", "here.example", "slow.example"], heard.append)
    assert heard[:6] == [False, True, False] * 2
    assert asked[:3] == ["gone.example", "here.example", "slow.example"]


def test_a_clock_that_nobody_synchronises_has_no_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(kernel_clock.kernel_clock().error_us_max, int)
    for is_synchronised in (True, False):
        state = kernel_clock.KernelClock(is_synchronised, -0.25, 7)
        monkeypatch.setattr(kernel_clock, "kernel_clock", lambda state=state: state)
        offset_s = kernel_clock.clock_offset_s()
        assert offset_s == -0.25 if is_synchronised else math.isnan(offset_s)
