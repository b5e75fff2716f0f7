"""The report: counts, metrics, the page, and when a file counts as changed."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Environment
from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.report.files import (
    MODES,
    check_path,
    render_file,
    report_differs,
    write_report,
)
from ansible_collections.fleetops.environments.plugins.module_utils.report.metrics import render_metrics
from ansible_collections.fleetops.environments.plugins.module_utils.report.model import (
    Report,
    report_campaign,
    report_fleet,
    report_rollout,
)
from ansible_collections.fleetops.environments.plugins.module_utils.report.page import render_page
from tests.sandbox.process import CHECKOUT

from .support import NOW

HOSTILE = '</script><script>alert("\u2028")</script><!-- & "generated_at":"x" \\ {{ 1 }}\n'
CHART_JS = CHECKOUT / "plugins/module_utils/report/page_files/chart.js"


def letta(**fields: Any) -> Environment:
    known = {
        "status": "online", "mode": "standard", "os": "linux", "version": "0.34.12", "updatable": True,
        "last_seen_at": "2026-01-31T11:59:55.000Z", "listed_at": "2026-01-31T12:00:00.000Z", **fields,
    }  # fmt: skip
    says = {"supported": known["updatable"], "writable": True, "reason": "managed by pip"}
    return Environment(
        "letta", "environment-1", "device-1", None, "https://letta.invalid", known["status"], says, known
    )


def qoder(**fields: Any) -> Environment:
    known = {"status": "ready", "config_type": "cloud", "networking_type": "limited", **fields}
    return Environment("qoder", "env_1", "env_1", None, "https://qoder.invalid", "online", None, known)


def record(**changes: Any) -> dict[str, Any]:
    """A row as `Ledger.records` returns it, with the keys that the report reads."""
    return {
        "host": "alpha", "environment_id": "environment-1", "status": "sent", "outcome": None, "reply_state": "replied",
        "attempt": 1, "sent_at": "2026-01-31T12:00:00.000Z", "ended_at": "2026-01-31T12:00:01.000Z", **changes,
    }  # fmt: skip


def target(**changes: Any) -> dict[str, Any]:
    """A target as a rollout's record describes it."""
    return {
        "host": "alpha", "environment_id": "environment-1", "preflight": "updatable", "wave": 1,
        "from_version": "0.33.9", "to_version": "0.34.12", "status": "changed", "updated_at": None,
        "ended_at": "2026-01-31T12:06:01.000Z", "reason": "updated from 0.33.9 to 0.34.12", "manual_command": None,
        "install_path": None, **changes,
    }  # fmt: skip


def rollout(*targets: dict[str, Any]) -> dict[str, Any]:
    """A rollout's record."""
    wave = {"number": 1, "size": 1, "state": "passed", "started_at": "2026-01-31T12:00:01.000Z",
            "ended_at": "2026-01-31T12:06:01.000Z", "max_failures": 0, "reason": None}  # fmt: skip
    pending = {**wave, "number": 2, "state": "pending", "started_at": None, "ended_at": None}
    return {
        "name": "to-0.34.12", "version": "0.34.12", "state": "running", "planned_at": "2026-01-31T12:00:00.000Z",
        "waves_wanted": ["1", "100%"], "waves": [wave, pending], "targets": list(targets),
    }  # fmt: skip


def whole() -> Report:
    """A report with every part, filled by hostile devices."""
    fleet = {
        "alpha": letta(mode=HOSTILE, os=HOSTILE, version=HOSTILE, updatable=False),
        HOSTILE: qoder(status=HOSTILE, config_type=HOSTILE),
    }
    campaign = report_campaign(HOSTILE, "active", [record(host=HOSTILE, outcome=HOSTILE)])
    return report_fleet(fleet, [campaign], report_rollout(rollout(target(host=HOSTILE, reason=HOSTILE))))


def test_environments_are_counted_by_the_fields_of_their_provider() -> None:
    fleet = {
        "b": letta(mode=None), "a": letta(status="offline"), "c": letta(version="0.33.9", updatable=False),
        "q": qoder(), "p": qoder(status=None, networking_type=None),
    }  # fmt: skip

    report = report_fleet(fleet)

    assert [row.host for row in report.environments] == ["a", "b", "c", "p", "q"]
    assert report.count_values() == {
        "provider": {"letta": 3, "qoder": 2},
        "status": {"online": 3, "offline": 1, "ready": 1},
        "mode": {"standard": 2, "unknown": 1},
        "os": {"linux": 3},
        "version": {"0.34.12": 2, "0.33.9": 1},
        "config_type": {"cloud": 2},
        "networking_type": {"limited": 1, "unknown": 1},
    }
    by_host = {row.host: row for row in report.environments}
    assert (by_host["a"].updatable, by_host["a"].not_updatable_reason) == (True, None)
    assert (by_host["c"].updatable, by_host["c"].not_updatable_reason) == (False, "managed by pip")
    assert (by_host["q"].updatable, by_host["q"].mode, by_host["q"].last_seen_at) == (None, None, None)
    assert report.listed_at == "2026-01-31T12:00:00.000Z"


def test_a_host_without_inventory_variables_shows_its_contract() -> None:
    bare = Environment("letta", "environment-1", "device-1", None, "https://letta.invalid", "online", None, {})

    report = report_fleet({"alpha": bare})

    assert report.count_values() == {"provider": {"letta": 1}, "status": {"online": 1}}
    assert report.listed_at is None


def test_the_targets_of_a_rollout_have_an_outcome_or_a_reason_for_no_wave() -> None:
    shown = report_rollout(
        rollout(
            target(),
            target(status=None, to_version=None, reason=None, ended_at=None),
            target(status=None, preflight="current", wave=None),
            target(status=None, preflight="not_updatable", wave=None, manual_command="npm install"),
        )
    )

    assert [entry.status for entry in shown.targets] == ["changed", "waiting", "current", "not_updatable"]
    assert shown.counts == {"changed": 1, "current": 1, "not_updatable": 1, "waiting": 1}
    assert [entry.wave for entry in shown.targets] == [1, 1, None, None]
    assert shown.targets[3].manual_command == "npm install"
    assert [(wave.number, wave.state) for wave in shown.waves] == [(1, "passed"), (2, "pending")]


def test_a_campaign_is_counted_by_how_its_deliveries_ended() -> None:
    shown = report_campaign("c", "paused", [record(), record(status="failed", outcome="http_400", reply_state=None)])

    assert (shown.state, shown.counts, shown.replies) == ("paused", {"failed": 1, "sent": 1}, {"replied": 1})
    assert [entry.outcome for entry in shown.deliveries] == [None, "http_400"]


def test_json_is_the_whole_report_with_the_time_first() -> None:
    data = json.loads(render_file("json_path", whole(), NOW))

    assert list(data) == ["generated_at", "schema", "fleet", "environments", "rollout", "campaigns"]
    assert data["generated_at"] == "2026-01-31T12:00:00.000Z"
    assert data["fleet"]["total"] == len(data["environments"]) == 2
    assert data["rollout"]["targets"][0]["id"] == data["campaigns"][0]["deliveries"][0]["id"] == "environment-1"


class TestMetrics:
    def samples(self, text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
        """Metric → its samples, as Prometheus' own client reads them; asserts that all samples differ."""
        families = list(text_string_to_metric_families(text))
        assert {family.type for family in families} == {"gauge"}
        found = {family.name: [(sample.labels, sample.value) for sample in family.samples] for family in families}
        assert len(found) == len(families)
        for name, samples in found.items():
            assert len({tuple(sorted(labels.items())) for labels, _value in samples}) == len(samples), name
        return found

    def test_metrics_count_each_value(self) -> None:
        fleet = {"a": letta(), "b": letta(status="offline", updatable=False), "q": qoder()}
        campaign = report_campaign("c", "active", [record(), record(status="failed")])

        found = self.samples(render_metrics(report_fleet(fleet, [campaign], report_rollout(rollout(target()))), NOW))

        assert found["fleetops_report_generated_timestamp_seconds"] == [({}, NOW.timestamp())]
        assert found["fleetops_environments"] == [
            ({"provider": "letta", "status": "offline"}, 1),
            ({"provider": "letta", "status": "online"}, 1),
            ({"provider": "qoder", "status": "ready"}, 1),
        ]
        assert found["fleetops_environments_by_version"] == [({"provider": "letta", "version": "0.34.12"}, 2)]
        assert found["fleetops_environments_by_networking_type"] == [
            ({"provider": "qoder", "networking_type": "limited"}, 1)
        ]
        assert found["fleetops_environments_updatable"] == [({"provider": "letta"}, 1)]
        assert found["fleetops_campaign_deliveries"] == [
            ({"campaign": "c", "status": "failed"}, 1), ({"campaign": "c", "status": "sent"}, 1),
        ]  # fmt: skip
        assert found["fleetops_rollout_targets"] == [({"rollout": "to-0.34.12", "status": "changed"}, 1)]
        assert found["fleetops_rollout_waves"] == [
            ({"rollout": "to-0.34.12", "state": "passed"}, 1), ({"rollout": "to-0.34.12", "state": "pending"}, 1),
        ]  # fmt: skip

    def test_rare_values_share_one_number(self) -> None:
        versions = ["0.34.12"] * 3 + ["other"] * 2 + [f"0.1.{number}" for number in range(500)]
        fleet = {f"host-{number}": letta(version=version) for number, version in enumerate(versions)}

        found = self.samples(render_metrics(report_fleet(fleet), NOW))["fleetops_environments_by_version"]

        assert len(found) == 20
        assert sum(count for _labels, count in found) == len(versions)
        assert ({"provider": "letta", "version": "0.34.12"}, 3) in found
        assert ({"provider": "letta", "version": "other"}, 2 + 500 - 18) in found

    @given(st.text())
    def test_no_text_breaks_the_format(self, text: str) -> None:
        campaign = report_campaign(text, "active", [record(status="sent")])

        found = self.samples(render_metrics(report_fleet({"a": letta(version=text, mode=text)}, [campaign]), NOW))

        assert len(found["fleetops_environments_by_version"]) == 1

    def test_metrics_contain_no_host_and_no_id(self) -> None:
        text = render_metrics(report_fleet({"alpha-host": letta()}, [report_campaign("c", "active", [record()])]), NOW)

        assert "alpha" not in text
        assert "environment-1" not in text


class TestPage:
    def test_data_are_unchanged_in_the_page_and_close_no_element(self) -> None:
        data = whole().to_json(NOW) | {"raw": HOSTILE}
        text = render_page(data)

        embedded = text.partition('<script id="report" type="application/json">')[2].partition("</script>")[0]
        assert json.loads(embedded) == data
        assert not set("<>&\u2028\u2029") & set(embedded)
        assert text.count("<script") == text.count("</script>") == 3

    def test_the_policy_of_the_page_allows_only_its_own_scripts_and_style(self) -> None:
        text = render_page(whole().to_json(NOW))

        elements = re.findall(r"<(script|style)>(.*?)</\1>", text, re.DOTALL)
        hashes = {
            name: [f"'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'" for kind, body in
                   elements if kind == name]
            for name in ("script", "style")
        }  # fmt: skip
        (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
        assert dict(part.split(" ", 1) for part in policy.split("; ")) == {
            "default-src": "'none'",
            "script-src": " ".join(hashes["script"]),
            "style-src": " ".join(hashes["style"]),
            "img-src": "data:",
            "base-uri": "'none'",
            "form-action": "'none'",
        }
        assert len(hashes["script"]) == 2

    def test_no_script_of_the_page_turns_text_into_markup(self) -> None:
        script = "".join(path.read_text() for path in CHART_JS.parent.glob("*.js") if path.is_file())

        for way in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "srcdoc",
        ):
            assert way not in script

    def test_chart_js_is_unchanged_and_harmless_to_inline(self) -> None:
        library = (CHART_JS / "chart.umd.min.js").read_bytes()
        told = (CHART_JS / "README.md").read_text()

        assert f"SHA-256 of chart.umd.min.js: {hashlib.sha256(library).hexdigest()}\n" in told
        assert told.split("\n")[0].removeprefix("# ").encode() in library[:100].replace(b".js v", b".js ")
        for part in (b"</script", b"<!--", b"innerHTML", b"eval(", b"new Function", b"XMLHttpRequest", b"fetch("):
            assert part not in library
        assert "MIT License" in (CHART_JS / "LICENSE.md").read_text()
        assert "sourceMappingURL" not in render_page({})


class TestFiles:
    @pytest.mark.parametrize("option", MODES)
    def test_another_time_is_no_change_but_another_fleet_is(self, option: str, tmp_path: Path) -> None:
        path = str(tmp_path / "file")
        report, later = whole(), NOW + timedelta(hours=1)
        assert report_differs(path, render_file(option, report, NOW))
        write_report(option, path, render_file(option, report, NOW))

        assert render_file(option, report, later) != render_file(option, report, NOW)
        assert not report_differs(path, render_file(option, report, later))
        assert report_differs(path, render_file(option, report_fleet({"a": letta(version="0.1.0")}), NOW))

    def test_invalid_text_is_replaced(self, tmp_path: Path) -> None:
        Path(tmp_path, "file").write_bytes(b"\xff\xfe")

        assert report_differs(str(tmp_path / "file"), "text")

    @pytest.mark.parametrize(("option", "mode"), [("path", 0o600), ("json_path", 0o600), ("metrics_path", 0o644)])
    def test_a_file_keeps_its_permissions(self, option: str, mode: int, tmp_path: Path) -> None:
        path = tmp_path / "file"

        write_report(option, str(path), "first")
        assert stat.S_IMODE(path.stat().st_mode) == mode
        path.chmod(0o640)
        write_report(option, str(path), "second")

        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert path.read_text() == "second"
        assert [entry.name for entry in tmp_path.iterdir()] == ["file"]

    @pytest.mark.parametrize(("option", "mode"), [("path", 0o600), ("metrics_path", 0o644)])
    def test_a_link_is_replaced_and_its_target_left_alone(self, option: str, mode: int, tmp_path: Path) -> None:
        precious, link = tmp_path / "precious", tmp_path / "link"
        precious.write_text("mine")
        precious.chmod(0o666)
        link.symlink_to(precious)

        write_report(option, str(link), "text")

        assert (precious.read_text(), link.read_text(), link.is_symlink()) == ("mine", "text", False)
        assert stat.S_IMODE(link.stat().st_mode) == mode

    def test_the_exporter_reads_only_prom_files(self, tmp_path: Path) -> None:
        check_path("metrics_path", str(tmp_path / "fleet.prom"))

        with pytest.raises(OptionError, match=r"metrics_path: must end in \.prom"):
            check_path("metrics_path", str(tmp_path / "fleet.txt"))
        with pytest.raises(OptionError, match="path: cannot write"):
            check_path("path", str(tmp_path / "nowhere" / "fleet.html"))


def test_times_are_utc() -> None:
    elsewhere = datetime.fromisoformat("2026-01-31T13:00:00+01:00")

    assert report_fleet({}).to_json(elsewhere) == report_fleet({}).to_json(elsewhere.astimezone(UTC))
