"""fleet_report, and playbooks/report.yml: the files that they create from an inventory and a ledger."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from .conftest import AGENT, Ansible, Run, awake, step
from .hostile import METADATA, TEMPLATE

PLAYBOOK = "fleetops.environments.report"
ONCE = {"run_once": True}


def report(ansible: Ansible, *arguments: str, source: Any = None, **variables: Any) -> Run:
    """Run the playbook by its name."""
    return ansible.playbook(PLAYBOOK, "-e", json.dumps(variables), *arguments, source=source)


def read_report(ansible: Ansible, name: str = "fleet.json") -> dict[str, Any]:
    data: dict[str, Any] = json.loads((ansible.directory / name).read_text())
    return data


def read_embedded(ansible: Ansible, name: str = "fleet.html") -> dict[str, Any]:
    """The data embedded in the page."""
    text = (ansible.directory / name).read_text()
    data: dict[str, Any] = json.loads(text.partition('type="application/json">')[2].partition("</script>")[0])
    return data


@pytest.mark.covers("fleet_report", "path", "json_path", "metrics_path")
def test_the_playbook_writes_the_fleet_as_a_page_as_json_and_as_metrics(ansible: Ansible) -> None:
    fleet = ansible.sandbox.fleet()
    files = {"report_path": "fleet.html", "report_json_path": "fleet.json", "report_metrics_path": "fleet.prom"}

    checked = report(ansible, "--check", **files)
    checked.assert_quiet()
    assert checked.result("Write the report")["changed"]
    assert not any((ansible.directory / name).exists() for name in files.values())

    run = report(ansible, **files)

    run.assert_quiet()
    result = run.result("Write the report")
    assert result["files"] == [{"path": name, "changed": True} for name in files.values()]
    statuses = Counter("online" if entry["online"] else "offline" for entry in fleet)
    assert f"{len(fleet)} environments: {statuses['online']} online, {statuses['offline']} offline" in run.stdout
    data = read_report(ansible)
    assert {row["id"] for row in data["environments"]} == {entry["id"] for entry in fleet}
    assert data["fleet"]["counts"]["status"] == statuses
    modes = Counter(entry["row"].get("currentMode") or "unknown" for entry in fleet)
    assert data["fleet"]["counts"]["mode"] == modes
    assert read_embedded(ansible) == data
    metrics = (ansible.directory / "fleet.prom").read_text()
    assert f'fleetops_environments{{provider="letta",status="online"}} {statuses["online"]}\n' in metrics


def test_only_new_content_counts_as_changed(ansible: Ansible) -> None:
    static = ansible.static(ansible.listing())
    files = {"report_path": "fleet.html", "report_json_path": "fleet.json", "report_metrics_path": "fleet.prom"}
    first = report(ansible, source=static, **files)
    before = {name: (ansible.directory / name).read_text() for name in files.values()}

    checked = report(ansible, "--check", source=static, **files)
    unchanged = {name: (ansible.directory / name).read_text() for name in files.values()} == before
    again = report(ansible, source=static, **files)

    assert [run.result("Write the report")["changed"] for run in (first, checked, again)] == [True, False, False]
    assert unchanged
    after = {name: (ansible.directory / name).read_text() for name in files.values()}
    assert all(after[name] != before[name] for name in after)

    limited = report(ansible, "--limit", f"!{read_report(ansible)['environments'][0]['host']}", source=static, **files)
    assert [file["changed"] for file in limited.result("Write the report")["files"]] == [True] * 3


@pytest.mark.covers("fleet_report", "hosts", "allow_empty")
def test_the_report_covers_the_hosts_of_the_play_or_the_named_hosts(ansible: Ansible) -> None:
    ansible.file("inventory/servers.yaml", "all: {hosts: {web-1: {}}}\n")
    source = ansible.source("inventory/fleet.letta.yml", hostvars_prefix="own_")
    names = [entry["name"] for entry in awake(ansible.sandbox)[:3]]

    run = ansible.steps(
        {**step("play", "fleet_report", json_path="play.json"), **ONCE},
        {**step("named", "fleet_report", json_path="named.json", hosts=[*names[:2], "web-1"]), **ONCE},
        {**step("typo", "fleet_report", json_path="typo.json", hosts=["nobody"]), **ONCE},
        {**step("none", "fleet_report", json_path="none.json", hosts=["web-1"]), **ONCE},
        {**step("empty", "fleet_report", json_path="empty.json", hosts=["web-1"], allow_empty=True), **ONCE},
        source=source.parent, hosts="all", arguments=("--limit", ",".join([*names, "web-1"])),
    )  # fmt: skip

    assert [row["host"] for row in read_report(ansible, "play.json")["environments"]] == sorted(names)
    assert [row["host"] for row in read_report(ansible, "named.json")["environments"]] == sorted(names[:2])
    # With any prefix of the inventory's variables.
    assert all(row["version"] for row in read_report(ansible, "play.json")["environments"])
    assert run.result("typo")["msg"] == "hosts: 'nobody' is no host of the inventory"
    assert "allow_empty=true" in run.result("none")["msg"]
    assert not (ansible.directory / "none.json").exists()
    assert read_report(ansible, "empty.json")["fleet"]["total"] == 0


@pytest.mark.covers("fleet_report", "campaigns", "ledger")
def test_the_report_shows_the_results_of_campaigns(ansible: Ansible) -> None:
    entries = awake(ansible.sandbox)[:3]
    names = [entry["name"] for entry in entries]
    ansible.sandbox.add_fault("status", status=400, route="messages", target=entries[1]["id"])
    send = {"content": "hello", "agent_id": AGENT, "ledger": "ledger.sqlite", "max_failures": "100%"}
    ansible.steps(
        step("send", "send_message", **send, targets=names, campaign="c"),
        step("pause", "campaign_control", campaign="c", state="paused", ledger="ledger.sqlite"),
    ).assert_quiet()

    run = report(
        ansible, report_json_path="fleet.json", report_campaigns="c,nobody", report_ledger="ledger.sqlite",
        report_metrics_path="fleet.prom",
    )  # fmt: skip
    nowhere = report(ansible, report_json_path="none.json", report_campaigns=["c"], report_ledger="none.sqlite")
    none_yet = ansible.playbook(
        PLAYBOOK, "-e", json.dumps({"report_json_path": "none.json", "report_campaigns": ["c"]}),
        env={"FLEETOPS_LEDGER": str(ansible.directory / "none.sqlite")},
    )  # fmt: skip

    run.assert_quiet()
    campaign, nobody = read_report(ansible)["campaigns"]
    assert (campaign["name"], campaign["state"], campaign["counts"]) == ("c", "paused", {"sent": 2, "failed": 1})
    outcomes = {delivery["id"]: (delivery["status"], delivery["outcome"]) for delivery in campaign["deliveries"]}
    assert outcomes == {
        entries[0]["id"]: ("sent", None), entries[1]["id"]: ("failed", "http_400"), entries[2]["id"]: ("sent", None),
    }  # fmt: skip
    assert (nobody["name"], nobody["deliveries"]) == ("nobody", [])
    metrics = (ansible.directory / "fleet.prom").read_text()
    assert 'fleetops_campaign_deliveries{campaign="c",status="sent"} 2\n' in metrics
    nowhere.assert_error(f"ledger: there is no '{ansible.directory / 'none.sqlite'}'; give the one that a run")
    none_yet.assert_quiet()
    assert [entry["counts"] for entry in read_report(ansible, "none.json")["campaigns"]] == [{}]
    assert not (ansible.directory / "none.sqlite").exists()


@pytest.mark.covers("fleet_report", "rollout")
def test_the_report_shows_the_state_of_a_rollout(ansible: Ansible) -> None:
    names = ["one", "two", "three"]
    entries = [
        ansible.sandbox.add_environment(connectionName=name, metadata={"lettaCodeVersion": "0.33.9"}) for name in names
    ]
    ansible.sandbox.offline(entries[2]["id"])
    ansible.sandbox.upgrade_to("0.34.12")
    plan = {"name": "r", "version": "0.34.12", "targets": names, "waves": ["1", "100%"], "ledger": "ledger.sqlite"}
    ansible.steps(step("plan", "rollout", **plan)).assert_quiet()
    files = {"report_path": "fleet.html", "report_json_path": "fleet.json", "report_metrics_path": "fleet.prom"}

    run = report(ansible, "--limit", "one", report_rollout="r", report_ledger="ledger.sqlite", **files)
    unknown = report(ansible, report_rollout="s", report_ledger="ledger.sqlite", report_path="none.html")
    nowhere = report(ansible, report_rollout="r", report_ledger="none.sqlite", report_path="none.html")

    run.assert_quiet()
    rollout = read_report(ansible)["rollout"]
    assert read_embedded(ansible)["rollout"] == rollout
    assert (rollout["name"], rollout["version"], rollout["state"]) == ("r", "0.34.12", "pending")
    assert [(wave["number"], wave["size"], wave["state"]) for wave in rollout["waves"]] == [
        (1, 1, "pending"), (2, 1, "pending"),
    ]  # fmt: skip
    assert [(target["host"], target["id"], target["wave"], target["status"]) for target in rollout["targets"]] == [
        ("one", entries[0]["id"], 1, "waiting"),
        ("two", entries[1]["id"], 2, "waiting"),
        ("three", entries[2]["id"], None, "offline"),
    ]
    assert (
        'fleetops_rollout_targets{rollout="r",status="waiting"} 2\n' in (ansible.directory / "fleet.prom").read_text()
    )
    unknown.assert_error("rollout: the ledger has no rollout 's'; it has 'r'")
    nowhere.assert_error(f"ledger: there is no '{ansible.directory / 'none.sqlite'}'; give the one that a run")


def test_environments_of_both_providers_are_in_one_report(ansible: Ansible) -> None:
    sandbox = ansible.sandbox
    for provider in ("letta", "qoder"):
        ansible.file(f"both/fleet.{provider}.yml", f"plugin: fleetops.environments.{provider}\n")
    qoder = {"QODER_MANAGED_BASE_URL": sandbox.qoder.url, "QODER_ACCESS_TOKEN": sandbox.qoder.key}

    run = ansible.playbook(PLAYBOOK, "-e", "report_json_path=fleet.json", source=ansible.directory / "both", env=qoder)

    run.assert_quiet()
    rows = read_report(ansible)["environments"]
    of_qoder = [row for row in rows if row["provider"] == "qoder"]
    assert {row["id"] for row in of_qoder} == {
        entry["id"] for entry in sandbox.qoder.environments() if not entry["archived"]
    }
    assert all(row["mode"] is None and row["config_type"] for row in of_qoder)
    assert len(rows) - len(of_qoder) == len(sandbox.fleet())


def test_text_from_devices_stays_text(ansible: Ansible) -> None:
    hostile = "</script><script>alert(1)</script>"
    saying = {**METADATA, "os": hostile, "lettaCodeVersion": TEMPLATE}
    added = ansible.sandbox.add_environment(connectionName=hostile, currentMode=f'"}}\n{hostile}', metadata=saying)

    run = report(ansible, report_path="fleet.html", report_json_path="fleet.json", report_metrics_path="fleet.prom")

    run.assert_quiet()
    (row,) = [row for row in read_report(ansible)["environments"] if row["id"] == added["id"]]
    assert (row["os"], row["version"], row["mode"]) == (hostile, TEMPLATE, f'"}} {hostile}')
    assert read_embedded(ansible) == read_report(ansible)
    assert hostile not in (ansible.directory / "fleet.html").read_text()
    assert f'mode="\\"}} {hostile}"}} 1\n' in (ansible.directory / "fleet.prom").read_text()
    assert not (ansible.directory / "PWNED").exists()


def test_invalid_options_are_refused_before_anything_is_written(ansible: Ansible) -> None:
    run = ansible.steps(
        {**step("no file", "fleet_report"), **ONCE},
        {**step("ending", "fleet_report", path="fleet.html", metrics_path="fleet.txt"), **ONCE},
        {**step("nowhere", "fleet_report", path="fleet.html", json_path="/nonexistent/fleet.json"), **ONCE},
        step("each host", "fleet_report", path="fleet.html"),
        hosts="all",
    )

    said = {entry["task"]: entry["result"]["msg"] for entry in run.results}
    assert said["no file"] == "path: is needed, or one of json_path, metrics_path"
    assert said["ending"].startswith("metrics_path: must end in .prom")
    assert said["nowhere"].startswith("json_path: cannot write '/nonexistent/fleet.json'")
    assert "run_once: true" in said["each host"]
    assert not Path(ansible.directory, "fleet.html").exists()


def test_without_an_environment_the_playbook_fails_and_the_file_is_kept(ansible: Ansible) -> None:
    path = ansible.file("fleet.html", "before")
    empty = ansible.source(filters=["id == 'nothing'"])

    run = report(ansible, source=empty, report_path="fleet.html")
    run.assert_error("hosts: ", "allow_empty=true")
    assert path.read_text() == "before"

    report(ansible, source=empty, report_path="fleet.html", report_allow_empty=True)
    assert read_embedded(ansible)["environments"] == []
