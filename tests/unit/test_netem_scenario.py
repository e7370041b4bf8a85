"""Scenarios: events become states at moments, overlapping faults stay apart, and playing keeps to trio's clock."""

from random import Random

import pytest
import trio
from trio.testing import MockClock

from netem.emulation import play
from netem.errors import InvalidDataError
from netem.network import Network, load_network
from netem.profiles import load_profiles
from netem.scenario import (
    NetworkState,
    Scenario,
    Step,
    initial_state,
    load_scenario,
    load_scenarios,
    parse_scenario,
    select,
    timeline,
)

PROFILES = load_profiles()
NETWORK = load_network("two-areas")


def steps_of(events: str, *, duration_s: float = 100, outages: bool = False, speed: float = 1) -> list[Step]:
    scenario = parse_scenario(
        f"duration_s = {duration_s}\noutages = {str(outages).lower()}\nevents = [{events}]", "test.toml"
    )
    return list(timeline(scenario, NETWORK, PROFILES, rng=Random(1), speed=speed))


def down(step: Step) -> set[str]:
    return {name for name, link in step.state.items() if not link.is_up}


def apart(step: Step) -> set[str]:
    return {name for name, link in step.state.items() if link.group}


def at(steps: list[Step], at_s: float) -> Step:
    return [step for step in steps if step.at_s <= at_s][-1]


@pytest.mark.parametrize("scenario", load_scenarios().values(), ids=lambda each: each.name)
def test_a_shipped_scenario_begins_and_ends_with_everything_healed(scenario: Scenario) -> None:
    steps = list(timeline(scenario, NETWORK, PROFILES, rng=Random(1)))
    healed = initial_state(NETWORK, PROFILES)
    assert scenario.title
    assert steps[0].state == healed
    assert steps[-1] == Step(scenario.duration_s, healed, "end: all healed")
    assert [step.at_s for step in steps] == sorted({step.at_s for step in steps})


def test_a_partition_separates_an_area_and_keeps_it_whole() -> None:
    steps = steps_of("{ at_s = 10, action = 'partition', target = 'first-area', duration_s = 20 }")
    assert [step.at_s for step in steps] == [0, 10, 30, 100]
    state = steps[1].state
    assert apart(steps[1]) == {"north-1", "north-2"}
    assert state["north-1"].reaches(state["north-2"])
    assert state["south-1"].reaches(state["coordinator"])
    assert not state["north-1"].reaches(state["coordinator"])
    assert not state["south-1"].reaches(state["north-1"])
    assert apart(steps[2]) == set()


def test_two_partitions_at_once_are_apart_from_each_other() -> None:
    steps = steps_of(
        "{ at_s = 10, action = 'partition', target = 'area:north' },"
        "{ at_s = 20, action = 'partition', target = 'area:south' }"
    )
    state = at(steps, 20).state
    assert not state["north-1"].reaches(state["south-1"])
    assert not state["south-1"].reaches(state["coordinator"])
    assert state["south-1"].reaches(state["south-2"])


def test_a_flap_goes_down_and_up_as_often_as_it_says() -> None:
    steps = steps_of(
        "{ at_s = 10, action = 'flap', target = 'endpoint:north-1', period_s = 10, down_share = 0.25, count = 3 }"
    )
    assert [(step.at_s, bool(down(step))) for step in steps] == [
        (0, False), (10, True), (12.5, False), (20, True), (22.5, False), (30, True), (32.5, False), (100, False),
    ]  # fmt: skip


def test_a_degradation_that_ends_leaves_a_cut_alone() -> None:
    steps = steps_of(
        "{ at_s = 10, action = 'cut', target = 'all', duration_s = 50 },"
        "{ at_s = 20, action = 'degrade', target = 'all', duration_s = 20, delay_factor = 2 }"
    )
    assert at(steps, 30).state["north-1"].profile.up.delay_s == pytest.approx(0.07)
    assert at(steps, 45).state["north-1"].profile == PROFILES["lte"]
    assert down(at(steps, 45)) == set(at(steps, 45).state)
    assert down(at(steps, 65)) == set()


def test_degradations_add_up_and_another_profile_replaces() -> None:
    steps = steps_of(
        "{ at_s = 10, action = 'degrade', target = 'all', delay_factor = 2 },"
        "{ at_s = 20, action = 'degrade', target = 'all', delay_factor = 3 },"
        "{ at_s = 30, action = 'degrade', target = 'area:north', profile = 'gprs', rate_factor = 0.5 }"
    )
    assert at(steps, 20).state["north-1"].profile.up.delay_s == pytest.approx(6 * 0.035)
    assert at(steps, 30).state["north-1"].profile.up.delay_s == pytest.approx(0.55)
    assert at(steps, 30).state["north-1"].profile.down.rate_bit_s == 20_000


def test_healing_ends_what_began_before_for_its_target_only() -> None:
    steps = steps_of(
        "{ at_s = 10, action = 'cut', target = 'all' },"
        "{ at_s = 12, action = 'flap', target = 'all', period_s = 10, count = 5 },"
        "{ at_s = 20, action = 'heal', target = 'area:north' },"
        "{ at_s = 40, action = 'cut', target = 'endpoint:north-1', duration_s = 5 }"
    )
    assert down(at(steps, 19)) == set(NETWORK.base_profiles(PROFILES))
    assert down(at(steps, 32)) == {"coordinator", "south-1", "south-2"}
    assert "north-1" in down(at(steps, 42))
    assert "north-1" not in down(at(steps, 46))


def test_the_coordinator_is_out_for_as_long_as_it_says() -> None:
    steps = steps_of("{ at_s = 10, action = 'coordinator-outage', duration_s = 45 }")
    assert down(at(steps, 54)) == {"coordinator"}
    assert down(at(steps, 55)) == set()


def test_a_speed_divides_every_moment() -> None:
    steps = steps_of("{ at_s = 10, action = 'cut', target = 'all', duration_s = 20 }", speed=10)
    assert [step.at_s for step in steps] == [0, 1, 3, 10]


def test_outages_come_as_often_as_the_profile_says() -> None:
    network = Network.model_validate({"endpoints": [{"name": f"g{i}", "profile": "gprs"} for i in range(200)]})
    scenario = parse_scenario("duration_s = 36000\noutages = true", "calm.toml")
    steps = list(timeline(scenario, network, PROFILES, rng=Random(3)))
    began = [step for step in steps if step.what.endswith("(1 endpoint)")]
    # 200 links, 10 hours, one outage an hour and 22 s of each: 1,988 expected, a Poisson deviation of 45.
    assert 1_800 < len(began) < 2_180
    again = list(timeline(scenario, network, PROFILES, rng=Random(3)))
    assert [(step.at_s, step.what) for step in again] == [(step.at_s, step.what) for step in steps]


def test_a_share_is_drawn_from_all_but_the_coordinator() -> None:
    assert len(select("share:0.5", NETWORK, Random(1))) == 2
    assert len(select("share:0.01", NETWORK, Random(1))) == 1
    assert set(select("share:1", NETWORK, Random(1))) == {"north-1", "north-2", "south-1", "south-2"}


@pytest.mark.parametrize("target", ["area:west", "endpoint:nobody", "share:0", "share:1.5", "share:1.2.3"])
def test_a_target_that_means_nobody_is_told_with_what_there_is(target: str) -> None:
    with pytest.raises(InvalidDataError, match=r"means no endpoint; expected an area of operator, north, south"):
        steps_of(f"{{ at_s = 1, action = 'cut', target = '{target}' }}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("events = []", "duration_s: Field required"),
        ("duration_s = 5\nevents = [{ at_s = 6, action = 'cut' }]", "cut at 6 s; expected within duration_s, 5"),
        ("duration_s = 5\nevents = [{ at_s = 1, action = 'explode' }]", "events.0"),
        (
            "duration_s = 5\nevents = [{ at_s = 1, action = 'cut', target = 'north' }]",
            "events.0.cut.target: found 'north'",
        ),
        (
            "duration_s = 5\nevents = [{ at_s = 1, action = 'flap', period_s = 1 }]",
            "events.0.flap.count: Field required",
        ),
    ],
)
def test_a_wrong_scenario_is_told_with_file_and_key(text: str, told: str) -> None:
    with pytest.raises(InvalidDataError) as caught:
        parse_scenario(text, "my.toml")
    assert str(caught.value).startswith("my.toml")
    assert told in str(caught.value)


def test_unknown_names_are_told_with_the_known_ones() -> None:
    with pytest.raises(InvalidDataError, match=r"found scenario partion; expected one of calm, .*partition"):
        load_scenario("partion")
    with pytest.raises(InvalidDataError, match="found profile umts"):
        steps_of("{ at_s = 1, action = 'degrade', profile = 'umts' }")


async def test_states_are_applied_at_their_moments(autojump_clock: MockClock) -> None:
    steps = steps_of("{ at_s = 10, action = 'cut', target = 'all', duration_s = 20 }")
    started_s = trio.current_time()
    applied: list[tuple[float, bool]] = []

    async def apply(state: NetworkState) -> None:
        applied.append((trio.current_time() - started_s, state["north-1"].is_up))

    await play(steps, apply)
    assert applied == [
        pytest.approx((0, True)),
        pytest.approx((10, False)),
        pytest.approx((30, True)),
        pytest.approx((100, True)),
    ]


async def test_a_step_that_is_late_is_applied_at_once_and_none_is_left_out(autojump_clock: MockClock) -> None:
    steps = steps_of("{ at_s = 10, action = 'flap', target = 'all', period_s = 2, count = 3 }")
    moments: list[float] = []
    started_s = trio.current_time()

    async def slow(_: NetworkState) -> None:
        moments.append(trio.current_time() - started_s)
        await trio.sleep(5)

    await play(steps, slow)
    assert moments == pytest.approx([0, 10, 15, 20, 25, 30, 35, 100])
