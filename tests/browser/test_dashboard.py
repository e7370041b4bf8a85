"""The dashboard in a real Chromium: drawn, live, of one origin, without a complaint on the console."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from protocol.dcnet.setup.schema import DEFAULT_SCHEMA, Kind, Noise, Schema
from tests.browser.chromium import Watched, wants_chromium, watch

if TYPE_CHECKING:
    from tests.browser.conftest import Site

pytestmark = wants_chromium
expect.set_options(timeout=60_000)  # a page load parses 4.6 MB of chart library, on a busy machine slowly
CHARTS = ("load-chart", "energy-chart", "participation-chart", "latency-chart")


@pytest.fixture
def watched(chromium: Browser) -> Iterator[Watched]:
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, timezone_id="Europe/Berlin")
    yield watch(context)
    context.close()


@pytest.fixture
def day(site: Site) -> Site:
    site.neighbourhood.settle()
    site.go_on(80)
    return site


def opened(watched: Watched, site: Site) -> Page:
    watched.page.goto(site.address)
    expect(watched.page.locator("#live")).to_have_text("live")
    return watched.page


def test_a_day_is_drawn_from_one_origin_without_complaint(watched: Watched, day: Site) -> None:
    page = opened(watched, day)
    for chart in CHARTS:
        expect(page.locator(f"#{chart} .main-svg").first).to_be_visible()
    # what is drawn is what the store holds: one vertex an interval, one bar for each interval and direction
    curve = page.locator("#load-chart .scatterlayer path.js-line").get_attribute("d")
    assert curve is not None
    assert len(re.findall(r"-?\d+(?:\.\d+)?,-?\d+(?:\.\d+)?", curve)) >= 60  # straight runs are merged
    expect(page.locator("#energy-chart .barlayer .point")).to_have_count(2 * 80)
    expect(page.locator("#rings svg")).to_have_count(5)
    expect(page.locator("#rings circle")).to_have_count(108)
    expect(page.locator("#opened")).to_have_text(re.compile(r"^398 of 400$"))
    shown = page.locator("#power").text_content()
    assert shown is not None
    assert re.fullmatch(r"-?[\d.,]+ k?W", shown)
    assert watched.complaints == []
    assert len(watched.requests) >= 5
    assert [url for url in watched.requests if not url.startswith((f"{day.address}/", "data:"))] == []


def test_a_round_that_ends_appears_by_itself(watched: Watched, day: Site) -> None:
    page = opened(watched, day)
    expect(page.locator("#opened")).to_have_text("398 of 400")
    loads = len([url for url in watched.requests if url == f"{day.address}/"])
    before = page.locator("#power-note").text_content()
    day.go_on()
    expect(page.locator("#opened")).to_have_text("403 of 405")
    assert page.locator("#power-note").text_content() != before
    assert len([url for url in watched.requests if url == f"{day.address}/"]) == loads == 1  # it was not reloaded
    assert watched.complaints == []


def test_it_comes_back_after_a_proxy_said_that_the_coordinator_is_away(watched: Watched, day: Site) -> None:
    """A browser gives an event stream up that is answered with an error, as a reverse proxy does meanwhile."""
    page = watched.page
    away = iter([True, True])

    def proxy(route: Route) -> None:
        if next(away, False):
            route.fulfill(status=502, body="Bad Gateway")
        else:
            route.continue_()

    page.route("**/dashboard/events", proxy)
    page.goto(day.address)
    expect(page.locator("#live")).to_have_text("reconnecting")
    expect(page.locator("#live")).to_have_text("live")
    before = page.locator("#opened").text_content()
    day.go_on()
    expect(page.locator("#opened")).not_to_have_text(before or "")


def test_a_ring_without_a_round_claims_no_total(watched: Watched, day: Site) -> None:
    day.neighbourhood.last.pop((3, 0))
    page = opened(watched, day)
    ring = page.locator("figure.ring", has_text="first round to come")
    expect(ring.locator("text").first).to_have_text("17")
    expect(ring.locator("svg")).to_have_attribute("aria-label", "Ring 0 of Südhang: 17 gateways, first round to come")
    expect(ring.locator("circle").last).to_have_css("fill", "none")  # asks again where the page is just redrawn
    assert watched.complaints == []


def test_who_is_missing_is_named(watched: Watched, site: Site) -> None:
    site.neighbourhood.settle()
    site.go_on(72)  # an outage takes six gateways of each of the first area's rings
    page = opened(watched, site)
    page.select_option("#area", "Nordring")
    expect(page.locator("#rings svg")).to_have_count(2)
    missing = sum(len(ring.missing) for ring in site.neighbourhood.status().rings if ring.area == "Nordring")
    assert missing >= 12
    expect(page.locator("#rings circle.out")).to_have_count(missing)
    expect(page.locator("#missing-title")).to_have_text(f"Missing from the last total: {missing}")
    expect(page.locator("#missing li").first).to_contain_text(re.compile(r"^ESTK01\d{8}Nordring, ring [01], position"))
    expect(page.locator("#present")).to_have_text(f"{48 - missing} of 48")


def test_who_is_enrolled_and_in_no_ring_is_missing_too(watched: Watched, site: Site) -> None:
    site.neighbourhood.settle()
    site.neighbourhood.enrolled = {"Nordring": 50}  # 48 of them in rings
    site.go_on(3)
    page = opened(watched, site)
    page.select_option("#area", "Nordring")
    expect(page.locator("#rings svg")).to_have_count(2)
    missing = sum(len(ring.missing) for ring in site.neighbourhood.status().rings if ring.area == "Nordring")
    expect(page.locator("#present")).to_have_text(f"{48 - missing} of 50")
    expect(page.locator("#present-note")).to_contain_text("48 in rings")
    expect(page.locator("#missing-title")).to_have_text(f"Missing from the last total: {missing + 2}")
    expect(page.locator("#missing li").first).to_have_text("2 gatewaysenrolled, in no ring until the next epoch")
    assert watched.complaints == []


def test_a_void_round_is_called_void(watched: Watched, site: Site) -> None:
    site.neighbourhood.settle()
    site.go_on(35)
    page = opened(watched, site)
    expect(page.locator(".ring.void")).to_have_count(1)
    expect(page.locator(".ring.void figcaption")).to_have_text("Hafenviertelround 34 void")
    expect(page.locator("#opened-note")).to_contain_text("2 void")
    expect(page.locator("#missing li").first).to_have_text("all 21Hafenviertel, ring 1: round void")
    expect(page.locator("#load-key")).to_contain_text("without a void ring")
    expect(page.locator("#power-note")).to_contain_text("without 1 ring")
    page.select_option("#area", "Südhang")
    expect(page.locator("#opened-note")).to_contain_text("0 void")


def test_before_the_first_round_the_page_says_what_will_come(watched: Watched, site: Site) -> None:
    page = opened(watched, site)
    expect(page.locator("#empty h2")).to_have_text("No round has ended yet")
    expect(page.locator("#full")).to_be_hidden()
    expect(page.locator("#steps li.done")).to_have_count(0)
    site.neighbourhood.settle()
    site.on_trio(site.neighbourhood.announce)
    expect(page.locator("#steps li.done")).to_have_count(2)
    expect(page.locator("#steps")).to_contain_text("108 gateways so far.")
    site.go_on()
    expect(page.locator("#empty")).to_be_hidden()
    expect(page.locator("#load-chart .main-svg").first).to_be_visible()
    assert watched.complaints == []


@pytest.mark.parametrize("width", [1280, 900, 390])
def test_nothing_is_wider_than_the_screen(chromium: Browser, day: Site, width: int) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme="dark")
    page = context.new_page()
    page.goto(day.address)
    expect(page.locator("#latency-chart .main-svg").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 1280:  # everything but the footer at first sight
        assert page.locator("main#full").evaluate("e => e.getBoundingClientRect().bottom") <= 800
    context.close()


def test_names_are_text_and_never_markup(watched: Watched, day: Site) -> None:
    """Area names come from enrolment requests; one that looks like markup must stay what it is."""
    name = "<img src=x onerror=alert(1)>"
    layout = day.neighbourhood.layout
    layout[0] = (replace(layout[0][0], area=name), layout[0][1])
    page = opened(watched, day)
    expect(page.locator("#rings figcaption").first).to_contain_text(name)
    assert page.locator("#rings img").count() == 0
    assert watched.complaints == []


def test_bills_are_counted_and_a_refused_one_is_marked(watched: Watched, day: Site) -> None:
    page = opened(watched, day)
    expect(page.locator("#opened")).to_have_text("398 of 400")
    expect(page.locator("#bills")).to_be_hidden()
    day.neighbourhood.add_bills({"asked": 3, "verified": 1204, "refused": 1, "declined": 2})
    day.go_on()
    expect(page.locator("#bills")).to_be_visible()
    counts = page.locator("#bills td")
    expect(counts).to_have_text(["3", "1,204", "1", "2"])
    expect(page.locator("#bills")).to_have_class(re.compile("wrong"))
    page.set_viewport_size({"width": 390, "height": 800})
    page.reload()
    expect(page.locator("#latency-chart .main-svg").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.select_option("#area", "Hafenviertel")
    expect(page.locator("#bills")).to_be_hidden()
    assert watched.complaints == []


def test_accusations_are_told_as_one_gateways_word(watched: Watched, day: Site) -> None:
    page = opened(watched, day)
    expect(page.locator("#opened")).to_have_text("398 of 400")
    expect(page.locator("#misbehaviour")).to_be_hidden()
    expect(page.locator("#misbehaviour-link")).to_be_hidden()
    day.neighbourhood.accuse(12)
    day.go_on()
    expect(page.locator("#misbehaviour")).to_be_visible()
    expect(page.locator("#misbehaviour-link")).to_have_text("12 misbehaviour reports")
    expect(page.locator("#misbehaviour-note")).to_have_text("the last 10 of 12")
    expect(page.locator("#misbehaviour")).to_contain_text("One gateway’s word about another")
    newest = page.locator("#misbehaviour-rows tr").first.locator("td")
    expect(newest).to_have_text(
        [
            "ESTK0100000030", "ESTK0100000026", "dealt a bad share", "12",
            re.compile(r"^4 Mar 2026, 20:36 Nordring, epoch 1, ring 1, round 71$"),
        ]
    )  # fmt: skip
    page.select_option("#area", "Südhang")
    expect(page.locator("#misbehaviour-link")).to_have_text("2 misbehaviour reports")
    expect(page.locator("#misbehaviour-note")).to_have_text("")
    for width in (1280, 900, 390):
        page.set_viewport_size({"width": width, "height": 800})
        page.reload()
        expect(page.locator("#latency-chart .main-svg").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("#misbehaviour table").evaluate("e => e.scrollWidth <= e.parentElement.clientWidth"), width
    assert watched.complaints == []


def test_noisy_totals_say_by_how_much(watched: Watched, site: Site) -> None:
    noise = {Kind.POWER: Noise(1_000_000, 24_000), Kind.ENERGY: Noise(1_000_000, 60_000)}
    slots = tuple(replace(slot, noise=noise.get(slot.kind)) for slot in DEFAULT_SCHEMA.slots)
    site.neighbourhood.schema = Schema(slots)
    site.neighbourhood.settle()
    site.go_on(20)
    page = opened(watched, site)
    expect(page.locator("#power-note")).to_contain_text(
        re.compile(r"noise ±\s7[5-6](\.\d)?\skW")
    )  # √5 rings · √2 · 24 kW
    expect(page.locator("#energy-note")).to_contain_text(re.compile(r"noise ±\s"))
    page.select_option("#area", "Südhang")
    expect(page.locator("#power-note")).to_contain_text(re.compile(r"noise ±\s33,9\d\d\sW|noise ±\s33\.9\skW"))
    assert watched.complaints == []
