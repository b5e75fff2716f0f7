"""The report's page in a real headless Chromium: what it shows, and that all data in it stay text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Environment
from ansible_collections.fleetops.environments.plugins.module_utils.report.files import render_file
from ansible_collections.fleetops.environments.plugins.module_utils.report.model import (
    Report,
    report_campaign,
    report_fleet,
    report_rollout,
)
from ansible_collections.fleetops.environments.plugins.module_utils.text import one_line
from tests.integration.conftest import AGENT, Ansible, awake, step
from tests.sandbox.process import CHECKOUT, Sandbox
from tests.unit.support import NOW

from .browser import chromium, open_page
from .device import eventually

WIDTHS = (375, 1280)
# The text of a cell without a value.
NOTHING = "\N{EN DASH}"
SCREENSHOTS = CHECKOUT / ".build/screenshots"
HOSTILE = [
    "<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", '"><svg onload=alert(3)>', "<!--",
    "javascript:alert(4)", "__proto__", "constructor", "x" * 190, "<b>bold</b>&amp;", "'-alert(5)-'", "\u202eright",
]  # fmt: skip
# Any other element on the page would come from a name.
ELEMENTS = {
    "HTML", "HEAD", "META", "LINK", "TITLE", "STYLE", "BODY", "HEADER", "H1", "H2", "P", "MAIN", "NOSCRIPT",
    "SECTION", "DL", "DT", "DD", "DIV", "FIGURE", "FIGCAPTION", "CANVAS", "DETAILS", "SUMMARY", "TABLE", "THEAD",
    "TBODY", "TR", "TH", "TD", "TIME", "LABEL", "INPUT", "SELECT", "OPTION", "BUTTON", "SPAN", "NAV", "SCRIPT",
}  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        with chromium() as browser:
            yield browser
    except RuntimeError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox.start(devices=10, seed=1) as sandbox:
        yield sandbox


@pytest.fixture
def ansible(tmp_path: Path, sandbox: Sandbox) -> Ansible:
    """Ansible's commands against a sandbox without real devices."""
    return Ansible(tmp_path, sandbox)


def letta(number: int, **fields: Any) -> Environment:
    known = {
        "status": "online" if number % 5 else "offline",
        "mode": ("standard", "acceptEdits", "unrestricted")[number % 3],
        "os": ("linux", "darwin")[number % 2],
        "version": ("0.34.12", "0.34.9", "0.33.10")[number % 3],
        "updatable": bool(number % 4),
        "last_seen_at": f"2026-01-31T11:{number % 60:02}:00.000Z",
        "listed_at": "2026-01-31T12:00:00.000Z",
        **fields,
    }
    says = {"supported": known["updatable"], "writable": True, "reason": "managed by pip"}
    return Environment("letta", f"environment-{number}", "device", None, "https://x", known["status"], says, known)


def qoder(number: int) -> Environment:
    known = {"status": "ready", "config_type": ("cloud", "self_hosted")[number % 2], "networking_type": "limited"}
    return Environment("qoder", f"env_{number}", f"env_{number}", None, "https://q.invalid", "online", None, known)


def rollout(fleet: Mapping[str, Environment]) -> dict[str, Any]:
    """A rollout's record as in the ledger: one wave passed, one failed, one is pending."""
    targets = [
        {
            "host": host, "environment_id": environment.id, "wave": wave, "status": status, "reason": reason,
            "preflight": "updatable" if wave else "not_updatable", "from_version": "0.33.9", "to_version": None,
            "manual_command": None if wave else "pipx upgrade letta", "ended_at": None,
        }
        for (host, environment), (wave, status, reason) in zip(
            fleet.items(),
            [(1, "changed", "updated from 0.33.9 to 0.34.12"), (2, "failed", "it did not come back within 300 s"),
             (2, "changed", "updated from 0.33.9 to 0.34.12"), (3, None, None), (None, None, "managed by pip")],
            strict=False,
        )
    ]  # fmt: skip
    targets.append(targets[0] | {"host": "gone", "environment_id": "environment-gone", "status": "unknown"})
    waves = [
        {"number": 1, "size": 1, "state": "passed", "started_at": "2026-01-31T11:00:00.000Z",
         "ended_at": "2026-01-31T11:06:30.000Z", "reason": None},
        {"number": 2, "size": 2, "state": "failed", "started_at": "2026-01-31T11:10:00.000Z",
         "ended_at": "2026-01-31T11:30:00.000Z", "reason": "1 of 2 failed"},
        {"number": 3, "size": 1, "state": "pending", "started_at": None, "ended_at": None, "reason": None},
    ]  # fmt: skip
    return {
        "name": "to-0.34.12", "version": "0.34.12", "state": "failed", "planned_at": "2026-01-31T10:59:00.000Z",
        "waves": waves, "targets": targets,
    }  # fmt: skip


def deliveries(fleet: Mapping[str, Environment], status: str = "sent") -> list[dict[str, Any]]:
    return [
        {"host": host, "environment_id": environment.id, "status": status, "outcome": "http_400", "attempt": 1,
         "reply_state": "replied", "sent_at": None, "ended_at": None}
        for host, environment in fleet.items()
    ]  # fmt: skip


def typical() -> Report:
    """Devices and Qoder's environments with a rollout and a campaign."""
    fleet = {f"device-{number:03}": letta(number) for number in range(120)}
    fleet |= {f"qoder-{number}": qoder(number) for number in range(3)}
    return report_fleet(fleet, [report_campaign("rotate", "active", deliveries(fleet))], report_rollout(rollout(fleet)))


def hostile() -> Report:
    """A report in which every value from outside is chosen to do harm."""
    fleet = {text: letta(number, mode=text, os=text, version=text, status=text) for number, text in enumerate(HOSTILE)}
    record = rollout(fleet)
    record |= {"name": HOSTILE[0], "version": HOSTILE[1], "state": HOSTILE[2]}
    for target in record["targets"]:
        target |= {"reason": HOSTILE[0], "status": HOSTILE[1], "manual_command": HOSTILE[2]}
    for wave in record["waves"]:
        wave |= {"state": HOSTILE[0], "reason": HOSTILE[7]}
    return report_fleet(
        fleet, [report_campaign(HOSTILE[1], HOSTILE[0], deliveries(fleet, HOSTILE[7]))], report_rollout(record)
    )


def save_page(directory: Path, report: Report) -> Path:
    path = directory / "fleet.html"
    path.write_text(render_file("path", report, NOW), encoding="utf-8")
    return path


def hosts(page: Page) -> list[str]:
    """The hosts in the table, in their order on the page."""
    return page.locator("#environments td[data-column=host]").all_inner_texts()


def control(page: Page, label: str) -> Locator:
    return page.get_by_label(label, exact=True)


def column(page: Page, name: str) -> list[str]:
    return page.locator(f"#environments td[data-column={name}]").all_inner_texts()


def shown(page: Page) -> str:
    return page.locator("#shown").inner_text()


def no_wider_than_the_window(page: Page) -> bool:
    wide: bool = page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    return wide


def test_the_page_of_a_hostile_fleet_shows_the_data_of_the_inventory(
    browser: Browser, ansible: Ansible, sandbox: Sandbox
) -> None:
    for text in HOSTILE:
        metadata = {"os": text, "lettaCodeVersion": text, "self_update": {"supported": False, "reason": text}}
        sandbox.add_environment(connectionName=text, currentMode=text, metadata=metadata)
    names = [entry["name"] for entry in awake(sandbox)][:3]
    send = {"content": "hello", "agent_id": AGENT, "ledger": "ledger.sqlite", "max_failures": "100%"}
    ansible.steps(step("send", "send_message", **send, targets=names, campaign=HOSTILE[1])).assert_quiet()
    variables = {"report_path": "fleet.html", "report_ledger": "ledger.sqlite", "report_campaigns": [HOSTILE[1]]}

    run = ansible.playbook("fleetops.environments.report", "-e", json.dumps(variables))

    run.assert_quiet()
    with open_page(browser, ansible.directory / "fleet.html") as page:
        assert shown(page) == f"{len(sandbox.fleet())} environments"
        assert page.locator("#campaigns tbody td").first.inner_text() == HOSTILE[1]
        control(page, "Mode").select_option(label=f"{HOSTILE[0]} (1)")
        assert column(page, "version") == [HOSTILE[0]]
        page.get_by_role("button", name="Clear filters").click()
        control(page, "Search").fill(HOSTILE[1].upper())
        assert column(page, "os") == [HOSTILE[1]]


@pytest.mark.parametrize("width", WIDTHS)
def test_no_text_from_outside_becomes_an_element_or_runs(browser: Browser, tmp_path: Path, width: int) -> None:
    with open_page(browser, save_page(tmp_path, hostile()), width=width) as page:
        for summary in page.locator("summary").all():
            summary.click()
        control(page, "Outcome of").select_option(index=1)
        control(page, "Outcome of").select_option(index=0)

        assert set(page.evaluate("[...document.querySelectorAll('*')].map((each) => each.tagName)")) <= ELEMENTS
        assert page.locator("script").count() == 3
        assert set(hosts(page)) == {*map(one_line, HOSTILE), "gone"}
        assert no_wider_than_the_window(page)


def test_environments_are_searched_filtered_sorted_and_paged(browser: Browser, tmp_path: Path) -> None:
    with open_page(browser, save_page(tmp_path, typical())) as page:
        assert shown(page) == "124 environments"
        assert hosts(page)[:2] == ["device-000", "device-001"]
        assert len(hosts(page)) == 50

        page.get_by_role("button", name="Next").click()
        assert hosts(page)[0] == "device-050"
        page.get_by_role("button", name="Last", exact=True).click()
        assert hosts(page)[-4:] == ["gone", "qoder-0", "qoder-1", "qoder-2"]
        assert page.locator("#pages").inner_text().split("\n") == ["First", "Previous", "Page 3 of 3", "Next", "Last"]

        control(page, "Search").fill("DEVICE-01")
        assert shown(page) == "10 of 124 environments"
        control(page, "Status").select_option(label="offline (24)")
        assert hosts(page) == ["device-010", "device-015"]
        page.get_by_role("button", name="Clear filters").click()
        assert shown(page) == "124 environments"

        header = page.get_by_role("columnheader", name="Version")
        header.get_by_role("button").click()
        assert header.get_attribute("aria-sort") == "ascending"
        assert column(page, "version")[0] == "0.33.10"
        header.get_by_role("button").press("Enter")
        assert header.get_attribute("aria-sort") == "descending"
        assert column(page, "version")[0] == "0.34.12"
        page.get_by_role("button", name="Last", exact=True).click()
        assert column(page, "version")[-4:] == [NOTHING] * 4


def test_a_rollout_shows_its_waves_and_each_environments_outcome_and_reason(browser: Browser, tmp_path: Path) -> None:
    with open_page(browser, save_page(tmp_path, typical())) as page:
        section = page.get_by_role("region", name="Rollout to-0.34.12")
        assert "failed, to version 0.34.12, planned 2026-01-31 10:59:00Z" in section.inner_text()
        line = section.get_by_role("img").get_attribute("aria-label") or ""
        assert line == "Waves on a time line: wave 1 passed, 6 min 30 s; wave 2 failed, 20 min"
        assert section.locator("tbody tr").nth(1).locator("td").all_inner_texts() == [
            "2", "failed", "2", "2026-01-31 11:10:00Z", "2026-01-31 11:30:00Z", "20 min", "1 of 2 failed",
        ]  # fmt: skip
        assert section.locator("tbody tr").count() == 3

        control(page, "Outcome").select_option(label="failed (1)")
        assert column(page, "reason") == ["it did not come back within 300 s"]
        control(page, "Outcome").select_option(label="not_updatable (1)")
        assert column(page, "reason") == ["managed by pip\nBy hand: pipx upgrade letta"]
        control(page, "Outcome").select_option(label="unknown (1)")
        assert (hosts(page), column(page, "status")) == (["gone"], ["not listed"])

        control(page, "Outcome of").select_option(label="Campaign rotate")
        assert shown(page) == "123 environments"
        assert (column(page, "outcome")[0], column(page, "reply")[0]) == ("sent", "replied")
        assert control(page, "Wave").count() == 0


def test_charts_are_drawn_and_a_click_on_a_bar_filters(browser: Browser, tmp_path: Path) -> None:
    with open_page(browser, save_page(tmp_path, typical())) as page:
        drawn = page.evaluate(
            """[...document.querySelectorAll("canvas")].map((canvas) =>
                [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data].some(Boolean))"""
        )
        assert drawn == [True] * 8
        modes = page.get_by_role("figure").filter(has_text="Mode")
        assert (
            modes.get_by_role("img").get_attribute("aria-label") == "Mode: acceptEdits 40, standard 40, unrestricted 40"
        )
        modes.get_by_text("As a table").click()
        assert modes.locator("td").all_inner_texts() == ["acceptEdits", "40", "standard", "40", "unrestricted", "40"]

        x, y = modes.locator("canvas").evaluate(
            "(canvas) => { const bar = Chart.getChart(canvas).getDatasetMeta(0).data[1]; return [bar.x - 5, bar.y]; }"
        )
        modes.locator("canvas").click(position={"x": x, "y": y})
        # Chart.js reports a click in the next frame.
        expect(page.locator("#shown")).to_have_text("40 of 124 environments")
        assert set(column(page, "mode")) == {"standard"}


def test_times_are_utc_or_on_request_in_the_named_zone_of_the_viewer(browser: Browser, tmp_path: Path) -> None:
    path = save_page(tmp_path, typical())
    with open_page(browser, path, timezone_id="America/St_Johns") as page:
        assert "Generated 2026-01-31 12:00:00Z, of the fleet as listed 2026-01-31 12:00:00Z" in page.inner_text(
            "header"
        )
        assert column(page, "last_seen_at")[7] == "2026-01-31 11:07:00Z"
        control(page, "Show them in your time zone, America/St_Johns").check()
        assert "Generated 2026-01-31 08:30:00," in page.inner_text("header")
        assert column(page, "last_seen_at")[7] == "2026-01-31 07:37:00"
        page.get_by_role("button", name="Next").click()
        assert column(page, "last_seen_at")[0] == "2026-01-31 08:20:00"
    with open_page(browser, path, timezone_id="UTC") as page:
        assert "Times are in UTC, which is your time zone (UTC) too." in page.inner_text("header")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_readable_on_a_phone_and_a_desktop_in_light_and_dark(
    browser: Browser, tmp_path: Path, width: int, scheme: Any
) -> None:
    with open_page(browser, save_page(tmp_path, typical()), width=width, color_scheme=scheme) as page:
        assert no_wider_than_the_window(page)
        dark = _luminance(page.locator("body").evaluate("(body) => getComputedStyle(body).backgroundColor")) < 0.2
        assert dark == (scheme == "dark")
        # The contrast that WCAG 2 requires of text at level AA.
        assert [pair for pair in _colours(page) if _contrast(*pair) < 4.5] == []
        card = page.locator("#environments tbody tr").first.bounding_box()
        assert card is not None
        assert card["width"] <= width or width > 375
        control(page, "Search").fill("device-01")
        assert control(page, "Sort by").is_visible() == (width == 375)
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"report-{width}-{scheme}.png", full_page=True)


def test_a_change_of_color_scheme_redraws_the_charts(browser: Browser, tmp_path: Path) -> None:
    colour = "Chart.getChart(document.querySelector('canvas')).data.datasets[0].backgroundColor[0]"
    with open_page(browser, save_page(tmp_path, typical()), color_scheme="light") as page:
        light = page.evaluate(colour)
        page.emulate_media(color_scheme="dark")
        # Playwright's own way to wait for an expression calls eval in the page, which forbids it.
        eventually(lambda: page.evaluate(colour) != light)


def test_ten_thousand_environments_are_searched_and_sorted_page_by_page(browser: Browser, tmp_path: Path) -> None:
    fleet = {f"device-{number:05}": letta(number) for number in range(10_000)}

    campaign = report_campaign("spring", "active", deliveries(fleet))

    with open_page(browser, save_page(tmp_path, report_fleet(fleet, [campaign]))) as page:
        assert shown(page) == "10,000 environments"
        assert len(hosts(page)) == 50
        control(page, "Search").fill("device-09999")
        assert hosts(page) == ["device-09999"]
        control(page, "Search").fill("")
        page.get_by_role("columnheader", name="Host").get_by_role("button").click()
        assert hosts(page)[0] == "device-09999"


def test_a_report_without_environments_is_still_a_page(browser: Browser, tmp_path: Path) -> None:
    with open_page(browser, save_page(tmp_path, report_fleet({}))) as page:
        assert shown(page) == "0 environments"


def _colours(page: Page) -> set[tuple[str, str]]:
    """The colours of every visible text, each with those of the nearest background."""
    found = page.evaluate(
        """[...document.querySelectorAll("body *")].filter((each) => each.checkVisibility() &&
            [...each.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim())).map((each) => {
            let behind = each;
            while (behind.parentElement && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") {
                behind = behind.parentElement;
            }
            return [getComputedStyle(each).color, getComputedStyle(behind).backgroundColor];
        })"""
    )
    return set(map(tuple, found))


def _luminance(colour: str) -> float:
    """The relative luminance of an opaque colour, as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
