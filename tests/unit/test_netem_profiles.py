"""Link profiles and networks as data: what ships is complete, and a wrong file says what is wrong where."""

import re
from pathlib import Path

import pytest

from netem.errors import InvalidDataError
from netem.network import Address, load_network, parse_network
from netem.profiles import UNSHAPED, Direction, LinkProfile, load_profiles, parse_profiles
from netem.scenario import parse_scenario

SHIPPED = load_profiles()
PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "netem.md").read_text(encoding="utf-8")
DEMANDED = {"ethernet", "dsl", "lte", "cdma450", "gprs", "bpl", "satellite-geo"}


def test_every_demanded_kind_of_line_is_there() -> None:
    assert set(SHIPPED) >= DEMANDED


@pytest.mark.parametrize(
    "profile", [each for each in SHIPPED.values() if each is not UNSHAPED], ids=lambda each: each.name
)
def test_a_profile_shapes_both_directions_and_tells_its_sources(profile: LinkProfile) -> None:
    assert profile.sources
    assert profile.assumed
    for direction in (profile.up, profile.down):
        assert direction.delays
        assert direction.rate_bit_s is not None
        assert direction.queue_s > 0
    assert profile.name == "ethernet" or profile.outages is not None


def test_sources_give_the_figures_that_they_are_cited_for() -> None:
    assert SHIPPED["lte"].round_trip_s == pytest.approx(0.070)
    assert (SHIPPED["lte"].up.rate_bit_s, SHIPPED["lte"].down.rate_bit_s) == (6_000_000, 13_000_000)
    assert SHIPPED["dsl"].round_trip_s == pytest.approx(0.011, abs=0.0005)
    assert SHIPPED["gprs"].round_trip_s >= 1.0
    assert 10_000 <= (SHIPPED["gprs"].up.rate_bit_s or 0) <= 20_000
    assert 10_000 <= (SHIPPED["gprs"].down.rate_bit_s or 0) <= 40_000
    outages = SHIPPED["gprs"].outages
    assert outages is not None
    assert (outages.duration_min_s, outages.duration_max_s) == (4, 40)
    assert SHIPPED["satellite-geo"].round_trip_s == pytest.approx(0.6)
    assert SHIPPED["satellite-geo"].up.delay_s >= 0.239
    assert SHIPPED["satellite-leo"].round_trip_s == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[lte\n", "mine.toml: not TOML"),
        ("lte = 3\n", "mine.toml: lte: found int; expected a table [lte]"),
        ("[lte]\ntitle = 'x'\nup = { delay_ms = 3 }\n", "mine.toml: lte.up.delay_ms: found 3; Extra inputs"),
        ("[lte]\ntitle = 'x'\nup = { loss = 1.0 }\n", "mine.toml: lte.up.loss: found 1.0; Input should be less than 1"),
        ("[lte]\ntitle = 'x'\nup = { delay_s = nan }\n", "mine.toml: lte.up.delay_s: found nan"),
        ("[lte]\ntitle = 'x'\nup = { delay_s = 0.01, jitter_s = 0.02 }\n", "expected at most delay_s, 0.01"),
        ("[LTE]\ntitle = 'x'\n", "mine.toml: LTE.name: found 'LTE'"),
        ("[lte]\n", "mine.toml: lte.title: Field required"),
        (
            "[a]\ntitle = 'x'\noutages = { mean_interval_s = 9, duration_min_s = 5, duration_max_s = 4 }\n",
            "expected duration_max_s of at least duration_min_s",
        ),
    ],
)
def test_a_wrong_profile_is_told_with_file_key_and_value(text: str, told: str) -> None:
    with pytest.raises(InvalidDataError) as caught:
        parse_profiles(text, "mine.toml")
    assert told in str(caught.value)


def test_a_file_adds_profiles_and_replaces_shipped_ones(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[lte]\ntitle = 'mine'\n[slow]\ntitle = 'slow'\nup = { delay_s = 2 }\n", encoding="utf-8")
    profiles = load_profiles(path)
    assert profiles["lte"].title == "mine"
    assert profiles["slow"].up.delay_s == 2
    assert profiles["gprs"] == SHIPPED["gprs"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataError, match=r"none\.toml: cannot be read: No such file"):
        load_profiles(tmp_path / "none.toml")


def test_a_degraded_link_is_worse_in_every_respect_asked_for() -> None:
    worse = SHIPPED["lte"].degraded(delay_factor=2, rate_factor=0.5, loss=0.1)
    assert worse.up.delay_s == pytest.approx(0.07)
    assert worse.up.jitter_s == pytest.approx(0.016)
    assert worse.down.rate_bit_s == 6_500_000
    assert worse.down.loss == pytest.approx(1 - 0.999 * 0.9)
    assert UNSHAPED.degraded(rate_factor=0.5).up.rate_bit_s is None


def test_what_a_line_holds_is_its_rate_times_delay_and_queue() -> None:
    direction = Direction(delay_s=0.5, jitter_s=0.1, rate_bit_s=8_000_000, queue_s=0.2)
    assert direction.in_flight_bytes() == 1_000_000
    assert Direction(rate_bit_s=1_000).in_flight_bytes() == 1 << 14


def test_the_shipped_network_has_areas_and_a_coordinator() -> None:
    network = load_network("two-areas")
    assert network.endpoints[0].name == "coordinator"
    assert len({endpoint.area for endpoint in network.endpoints}) == 3
    assert set(network.base_profiles(SHIPPED)) == {endpoint.name for endpoint in network.endpoints}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("endpoints = []\n", "net.toml: endpoints"),
        ("endpoints = [{ name = 'a' }, { name = 'a' }]\n", "endpoint a is there twice"),
        ("endpoints = [{ name = 'a b' }]\n", "endpoints.0.name: found 'a b'"),
        (
            "endpoints = [{ name = 'a' }]\nrelays = [{ source = 'b', listen = 'h:1', target = 'h:2' }]\n",
            "a relay names the endpoint b, which is not there",
        ),
        (
            "endpoints = [{ name = 'a' }]\nrelays = [{ source = 'a', listen = '7300', target = 'h:2' }]\n",
            "relays.0.listen: found '7300'; expected HOST:PORT",
        ),
    ],
)
def test_a_wrong_network_is_told_with_file_and_key(text: str, told: str) -> None:
    with pytest.raises(InvalidDataError) as caught:
        parse_network(text, "net.toml")
    assert told in str(caught.value)


def test_a_profile_that_is_not_there_is_told_with_the_known_ones() -> None:
    network = parse_network("endpoints = [{ name = 'a', profile = 'ltee' }]\n", "net.toml")
    with pytest.raises(InvalidDataError, match=r"endpoint a: found profile ltee; expected one of none, ethernet"):
        network.base_profiles(SHIPPED)


@pytest.mark.parametrize("text", ["127.0.0.1:7300", "[::1]:7300", "meter.example:0"])
def test_addresses_are_written_as_they_are_read(text: str) -> None:
    assert str(Address.model_validate(text)) == text


def _both(up: str, down: str) -> str:
    return up if up == down else f"{up} / {down}"


def _rate(rate_bit_s: int | None) -> str:
    assert rate_bit_s is not None
    return f"{rate_bit_s / 1e6:g} Mbit/s" if rate_bit_s >= 1_000_000 else f"{rate_bit_s / 1e3:g} kbit/s"


@pytest.mark.parametrize(
    "profile", [each for each in SHIPPED.values() if each is not UNSHAPED], ids=lambda each: each.name
)
def test_the_documentation_tells_the_figures_of_the_data(profile: LinkProfile) -> None:
    up, down, outages = profile.up, profile.down, profile.outages
    delay = _both(f"{up.delay_s * 1e3:g}", f"{down.delay_s * 1e3:g}")
    jitter = _both(f"{up.jitter_s * 1e3:g}", f"{down.jitter_s * 1e3:g}")
    every = "none"
    if outages is not None:
        every = f"{outages.mean_interval_s / 3600:g} h, {outages.duration_min_s:g} to {outages.duration_max_s:g} s"
    rate = _both(_rate(up.rate_bit_s), _rate(down.rate_bit_s))
    queue = _both(f"{up.queue_s:g}", f"{down.queue_s:g}")
    row = f"| `{profile.name}` | {delay} ± {jitter} | {up.loss * 100:g} | {rate} | {queue} | {every} |"
    assert row in PAGE.splitlines()
    assert up.loss == down.loss


def test_the_documentations_examples_are_valid() -> None:
    profiles, scenario, network = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert parse_profiles(profiles, "docs")["village"].outages is not None
    parsed = parse_network(network, "docs")
    assert parsed.relays[0].when_cut == "reset"
    assert len(parse_scenario(scenario, "docs").events) == 6
