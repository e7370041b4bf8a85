"""The consumer's page in a real Chromium: one origin, no complaint, both languages, a phone, its own values only."""

from __future__ import annotations

import csv
import datetime as dt
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from playwright.sync_api import Browser, expect

from protocol.cosem.delivery import PeriodResult
from protocol.logs.events import Event
from protocol.metering.obis import Obis
from tests.browser.chromium import Watched, wants_chromium, watch
from tests.integration.han_home import ANNA, BEN, GATEWAY, METERS, NOW_S, POINT, Home
from tests.integration.han_profiles import profile_document

pytestmark = wants_chromium
NOVEMBER_S, DECEMBER_S = 1_793_487_600, 1_796_079_600
BARS = 2 * 52  # both directions, from midnight to 13:00


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway's server in a thread with a trio run of its own."""
    home = Home(tmp_path_factory.mktemp("home"), (), profiles_document=profile_document())
    up, running = threading.Event(), dict[str, Any]()

    async def main() -> None:
        async with home.serving():
            assert home.log is not None
            home.log.note(Event.PASSWORD_SET, user="anna")
            home.log.note(Event.PASSWORD_SET, user="ben")
            registers = ((Obis(1, 0, 1, 8, 0, 255), 123_400), (Obis(1, 0, 1, 8, 63, 255), 0))
            result = PeriodResult(
                "p0-direct", 7, POINT, Obis(1, 0, 1, 8, 0, 255), 0, 30, 900, NOVEMBER_S, DECEMBER_S, True, True, 0,
                registers,
            )  # fmt: skip
            await home.store.write(home.use_cases.close(GATEWAY, result, []))
            with trio.CancelScope() as scope:
                running["scope"], running["token"] = scope, trio.lowlevel.current_trio_token()
                up.set()
                await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert up.wait(60)
    yield home.address
    trio.from_thread.run_sync(running["scope"].cancel, trio_token=running["token"])
    thread.join(20)
    home.keys.close()


@pytest.fixture(autouse=True)
def _closed(chromium: Browser) -> Iterator[None]:
    """A page's connections end with its test: the gateway takes 16 of one address."""
    yield
    for context in chromium.contexts:
        context.close()


def opened(
    chromium: Browser, address: str, login: tuple[str, str] = ANNA, locale: str = "de-DE", width: int = 1280
) -> Watched:  # fmt: skip
    context = chromium.new_context(
        viewport={"width": width, "height": 844}, ignore_https_errors=True, locale=locale, timezone_id="Asia/Tokyo",
        http_credentials={"username": login[0], "password": login[1]},
    )  # fmt: skip
    made = watch(context)
    made.page.clock.set_fixed_time(dt.datetime.fromtimestamp(NOW_S, dt.UTC))
    made.page.goto(f"{address}/")
    expect(made.page.locator("#device dd").first).to_be_visible(timeout=60_000)
    return made


def test_the_day_is_drawn_from_one_origin_without_complaint(chromium: Browser, address: str) -> None:
    watched = opened(chromium, address)
    page = watched.page
    expect(page.locator("#curve rect")).to_have_count(BARS)
    expect(page.locator("#imported")).to_have_text("0,26 kWhbezogen")
    expect(page.locator("#readings dd").first).to_have_text("100,960 kWh")
    assert watched.complaints == []
    assert {each.split("/smgw")[0].rsplit("/consumer.", 1)[0].rstrip("/") for each in watched.requests} == {address}


def test_it_says_who_gets_what_in_which_form(chromium: Browser, address: str) -> None:
    page = opened(chromium, address).page
    items = page.locator("#receivers li")
    expect(items).to_have_count(4)
    expect(items.nth(0)).to_contain_text("Summe von mindestens 30 Haushalten")
    expect(items.nth(1)).to_contain_text("Stadtwerke erhält Werte unter dem Namen dieses Gateways")
    expect(items.nth(2)).to_contain_text("Messstelle erhält Werte unter einem Pseudonym")
    expect(items.nth(3)).to_contain_text("Verteilnetz erhält eine Summe von mindestens 30 Haushalten")
    expect(page.locator("#periods td").last).to_have_text("0,000 kWh")
    expect(page.locator("#periods")).to_contain_text("123,400 kWh")


def test_a_file_for_display_software_is_downloaded(chromium: Browser, address: str) -> None:
    page = opened(chromium, address).page
    for name, count in ((METERS[0], 53), ("p0-direct", 193)):
        page.select_option("#file", name)
        with page.expect_download() as waiting:
            page.get_by_role("button", name="AR 2418-6").click()
        assert waiting.value.suggested_filename == f"ar2418-6-{name}.xml"
        content = Path(waiting.value.path()).read_text(encoding="utf-8")
        assert "http://vde.de/AR_2418-6.xsd" in content
        registers = 2 if name == METERS[0] else 1
        assert content.count("<IntervalReading>") == registers * count


def test_english_is_a_button_away_and_remembered(chromium: Browser, address: str) -> None:
    page = opened(chromium, address).page
    page.get_by_role("button", name="English").click()
    expect(page.locator("h1")).to_have_text("My electricity meter")
    expect(page.locator("#receivers li").first).to_contain_text("sum of at least 30 households")
    expect(page.locator("#log li")).to_have_count(1)
    expect(page.locator("#log li")).to_contain_text("Password of anna changed")
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "en")


def test_a_browser_that_prefers_english_gets_it(chromium: Browser, address: str) -> None:
    expect(opened(chromium, address, locale="en-GB").page.locator("h1")).to_have_text("My electricity meter")


def test_a_phone_shows_everything_without_scrolling_sideways(chromium: Browser, address: str) -> None:
    page = opened(chromium, address, width=360).page
    expect(page.locator("#curve rect")).to_have_count(BARS)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    places = [page.locator(f".{name}.panel").bounding_box() for name in ("today", "now", "data", "log", "device")]
    tops = [each["y"] for each in places if each]
    assert len(tops) == 5
    assert tops == sorted(tops)


def test_the_neighbour_at_the_same_gateway_sees_its_own_values(chromium: Browser, address: str) -> None:
    page = opened(chromium, address, BEN).page
    expect(page.locator("#readings dd").first).to_have_text("1.009,600 kWh")
    expect(page.locator("#log li")).to_contain_text("Passwort von ben")
    expect(page.locator("body")).not_to_contain_text("anna")
    expect(page.locator("#periods-panel")).to_be_hidden()


def test_a_day_is_downloaded_as_it_is_drawn(chromium: Browser, address: str, tmp_path: Path) -> None:
    page = opened(chromium, address).page
    with page.expect_download() as download:
        page.get_by_role("button", name="Tag als CSV").click()
    download.value.save_as(tmp_path / "day.csv")
    with (tmp_path / "day.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == BARS
    drawn = [each for each in rows if each["obis"] == "1-0:1.8.0*255"]
    assert sum(int(each["energy"]) for each in drawn) == 52 * 50
    assert download.value.suggested_filename == "interval-1emh0012345678-2026-11-30.csv"


def test_the_self_test_says_what_it_found(chromium: Browser, address: str) -> None:
    page = opened(chromium, address).page
    page.get_by_role("button", name="Selbsttest").click()
    expect(page.locator("#checks li")).to_have_count(6)
    expect(page.locator("#checks")).to_contain_text("2 von 2")


def test_two_different_new_passwords_are_not_sent(chromium: Browser, address: str) -> None:
    watched = opened(chromium, address)
    watched.page.locator("#first").fill("one password 1")
    watched.page.locator("#second").fill("another one 22")
    watched.page.get_by_role("button", name="Ändern").click()
    expect(watched.page.locator("#password-result")).to_have_text("Die beiden Passwörter sind verschieden.")
    assert not [each for each in watched.requests if "SetPassword" in each]
