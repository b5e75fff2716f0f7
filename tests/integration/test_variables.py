"""The variables of playbooks and roles: unknown ones are refused before anything is sent, others are converted."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from .conftest import AGENT, Ansible, Run, awake, messages_of

COLLECTION = "fleetops.environments"
ROLE = f"{COLLECTION}.instruct"
NEEDED = {"instruct_content": "Report.", "instruct_agent_id": AGENT}
MISSPELT = {
    "instruct_host": ("instruct", "instruct_hosts"),
    "instruct_contnet": ("instruct", "instruct_content"),
    "instruct_targets": ("instruct", "instruct_max_targets"),
    "intruct_hosts": ("instruct", "instruct_hosts"),
    "stop_host": ("stop", "stop_hosts"),
    "self_update_hots": ("self_update", "self_update_hosts"),
    "audit_min_versoin": ("audit", "audit_min_version"),
    "approvals_denny": ("approvals", "approvals_deny"),
    "report_jsn_path": ("report", "report_json_path"),
}


def _given(**variables: Any) -> tuple[str, str]:
    return "-e", json.dumps(variables)


def _play(**keywords: Any) -> dict[str, Any]:
    """A play of the role on each host of the fleet that is awake."""
    return {"hosts": "letta", "gather_facts": False, **keywords}


def _refused(ansible: Ansible, run: Run, *parts: str) -> None:
    """Assert that a run failed with one line that has all parts, and that no device heard of it."""
    run.assert_error(*parts)
    assert run.returncode == 2
    assert ansible.sandbox.received() == {}
    assert ansible.sandbox.requests("messages") == []


@pytest.mark.covers("check_variables", "name")
@pytest.mark.parametrize("misspelt", MISSPELT)
def test_a_misspelt_extra_variable_of_a_playbook_is_refused(ansible: Ansible, misspelt: str) -> None:
    playbook, nearest = MISSPELT[misspelt]
    needed = NEEDED if playbook == "instruct" else {}

    run = ansible.playbook(f"{COLLECTION}.{playbook}", *_given(**needed, **{misspelt: "x"}))

    _refused(ansible, run, f"{misspelt}: {playbook} has no such variable; {nearest!r} is nearest")
    assert [entry["task"] for entry in run.results] == ["Check the variables"]


@pytest.mark.parametrize("modes", ['["unrestricted"]', "['unrestricted']", "unrestricted"])
def test_a_forbidden_mode_is_found_in_each_form_of_the_list(ansible: Ansible, modes: str) -> None:
    entry = awake(ansible.sandbox)[0]
    ansible.sandbox.patch(entry["id"], currentMode="unrestricted")

    run = ansible.playbook(f"{COLLECTION}.audit", "--limit", entry["name"], "-e", f"audit_forbidden_modes={modes}")

    assert run.returncode == 2
    assert "1 break the rules; 1 forbidden mode" in run.result("Summarise")["msg"]


@pytest.mark.parametrize("arguments", [("--check",), ("--tags", "never-used"), ("--limit", "mode_standard")])
def test_the_check_is_made_in_each_kind_of_run(ansible: Ansible, arguments: tuple[str, ...]) -> None:
    run = ansible.playbook(ROLE, *_given(**NEEDED, instruct_host="x"), *arguments)

    _refused(ansible, run, "instruct_host: instruct has no such variable")


def test_the_check_is_made_without_any_host(ansible: Ansible) -> None:
    told = _given(**NEEDED, instruct_host="x")

    run = ansible.playbook(ROLE, *told, source=ansible.source(filters=["id == 'nothing'"]))

    _refused(ansible, run, "instruct_host: instruct has no such variable")


def test_each_wrong_name_of_a_playbook_is_refused_even_without_a_near_one(ansible: Ansible) -> None:
    run = ansible.playbook(f"{COLLECTION}.report", *_given(report_htlm="x", report_path="fleet.html"))

    _refused(ansible, run, "report_htlm: report has no such variable; 'report_hosts' is nearest")
    assert not (ansible.directory / "fleet.html").exists()


WRONG = {"instruct_contnet": "x"}
PLACES: dict[str, dict[str, Any]] = {
    "parameter of the role": {"roles": [{"role": ROLE, **NEEDED, **WRONG}]},
    "vars of the role": {"roles": [{"role": ROLE, "vars": {**NEEDED, **WRONG}}]},
    "vars of the play": {"roles": [ROLE], "vars": {**NEEDED, **WRONG}},
    "vars_files": {"roles": [{"role": ROLE, "vars": NEEDED}], "vars_files": ["wrong.yml"]},
    "include_role": {
        "tasks": [{"ansible.builtin.include_role": {"name": ROLE}, "vars": {**NEEDED, **WRONG}}],
    },
    "include_role once": {
        "tasks": [
            {
                "ansible.builtin.include_role": {"name": ROLE, "tasks_from": "send"},
                "vars": {**NEEDED, **WRONG},
                "run_once": True,
            }
        ],
    },
    "import_role": {"tasks": [{"ansible.builtin.import_role": {"name": ROLE}, "vars": {**NEEDED, **WRONG}}]},
    "block": {
        "tasks": [{"vars": WRONG, "block": [{"ansible.builtin.include_role": {"name": ROLE}, "vars": NEEDED}]}],
    },
}


@pytest.mark.parametrize("place", PLACES)
def test_a_misspelt_variable_is_refused_wherever_the_run_sets_it(ansible: Ansible, place: str) -> None:
    ansible.file("wrong.yml", yaml.safe_dump(WRONG))

    run = ansible.playbook([_play(**PLACES[place])])

    nearest = "instruct_contnet: instruct has no such variable; 'instruct_content' is nearest"
    # Core refuses unknown parameters of a role itself, before the role's first task.
    _refused(ansible, run, "instruct_contnet. Supported parameters" if place == "parameter of the role" else nearest)


def test_a_misspelt_variable_is_refused_in_a_file_whose_path_needs_the_inventory(ansible: Ansible) -> None:
    ansible.file("group_vars/all.yml", yaml.safe_dump({"fleet_team": "wrong"}))
    ansible.file("wrong.yml", yaml.safe_dump(WRONG))

    run = ansible.playbook([_play(roles=[{"role": ROLE, "vars": NEEDED}], vars_files=["{{ fleet_team }}.yml"])])

    _refused(ansible, run, "instruct_contnet: instruct has no such variable; 'instruct_content' is nearest")


def test_a_misspelt_variable_of_an_imported_playbook_is_refused(ansible: Ansible) -> None:
    run = ansible.playbook([{"import_playbook": ROLE, "vars": {**NEEDED, "instruct_host": "mode_standard"}}])

    _refused(ansible, run, "instruct_host: instruct has no such variable; 'instruct_hosts' is nearest")


@pytest.mark.parametrize("name", ["__instruct_targets", "__instruct_outcomes", "__instruct"])
def test_an_internal_variable_cannot_be_set(ansible: Ansible, name: str) -> None:
    run = ansible.playbook(ROLE, *_given(**NEEDED, **{name: []}))
    in_a_role = ansible.playbook([_play(roles=[{"role": ROLE, "vars": {**NEEDED, name: []}}])])

    for each in (run, in_a_role):
        _refused(ansible, each, f"{name}: is internal to instruct, and cannot be set")


def test_a_variable_of_the_inventory_is_refused_only_if_it_is_nearly_ours(ansible: Ansible) -> None:
    name = awake(ansible.sandbox)[0]["name"]
    command = (ROLE, *_given(**NEEDED), "--limit", name)
    ansible.file("group_vars/all.yml", "instruct_max_faliures: 5%\n")
    ansible.file("host_vars/elsewhere.yml", "instruct_raet: 5\n")

    refused = ansible.playbook(*command)
    ansible.file("group_vars/all.yml", "instruct_team: blue\ninstruct_contents: [a]\ninstructs_rate: 5\n")
    allowed = ansible.playbook(*command)

    _refused_before_sending = "instruct_max_faliures: instruct has no such variable; 'instruct_max_failures' is nearest"
    refused.assert_error(_refused_before_sending)
    # instruct_content is set, so instruct_contents is something else.
    allowed.assert_quiet()
    assert [message["content"] for message in messages_of(ansible.sandbox, awake(ansible.sandbox)[0])] == ["Report."]


def test_a_pattern_of_hosts_in_the_inventory_does_not_mean_the_whole_fleet(ansible: Ansible) -> None:
    ansible.file("group_vars/all.yml", "instruct_hosts: mode_standard\n")

    run = ansible.playbook(ROLE, *_given(**NEEDED))

    _refused(
        ansible, run, "instruct_hosts: is set where Ansible chooses no hosts by it; give it with -e, or use --limit"
    )


def test_a_blank_pattern_of_hosts_means_the_default(ansible: Ansible) -> None:
    run = ansible.playbook(f"{COLLECTION}.audit", *_given(audit_hosts="", audit_forbidden_modes="plan"))

    assert run.result("Check the variables")["variables"]["audit_hosts"] == "letta"
    assert len([entry for entry in run.results if entry["task"] == "Look for what breaks the rules"]) == 1


@pytest.mark.parametrize("role", ["instruct", "self_update"])
def test_a_role_does_not_take_the_pattern_of_hosts_of_its_playbook(ansible: Ansible, role: str) -> None:
    needed = NEEDED if role == "instruct" else {"self_update_version": "0.0.1"}

    run = ansible.playbook([_play(roles=[{"role": f"{COLLECTION}.{role}", "vars": needed}])], "-e", f"{role}_hosts=x")

    _refused(ansible, run, f"{role}_hosts: chooses no hosts of this play, which has its own; use --limit")


def test_a_play_of_a_role_may_choose_its_hosts_by_the_pattern(ansible: Ansible) -> None:
    entry = awake(ansible.sandbox)[0]
    hosts = "{{ instruct_hosts | default('nobody') }}"

    run = ansible.playbook(
        [_play(hosts=hosts, roles=[{"role": ROLE, "vars": NEEDED}])], *_given(instruct_hosts=entry["name"])
    )

    run.assert_quiet()
    assert len(messages_of(ansible.sandbox, entry)) == 1


def test_variables_of_a_play_for_another_role_of_it_are_none_of_ours(ansible: Ansible) -> None:
    entry = awake(ansible.sandbox)[0]
    ansible.file("roles/instruct_team/tasks/main.yml", "- ansible.builtin.debug: {msg: '{{ instruct_team_colour }}'}\n")
    roles, variables = ["instruct_team", {"role": ROLE, "vars": NEEDED}], {"instruct_team_colour": "red"}

    run = ansible.playbook([_play(hosts=entry["name"], roles=roles, vars=variables)])

    run.assert_quiet()
    assert len(messages_of(ansible.sandbox, entry)) == 1


def test_a_variable_of_another_role_with_the_same_prefix_is_none_of_ours(ansible: Ansible) -> None:
    entry = awake(ansible.sandbox)[0]
    ansible.file("roles/instruct_team/defaults/main.yml", "instruct_team_colour: blue\n")
    ansible.file("roles/instruct_team/vars/main.yml", "instruct_team_size: 5\n")
    ansible.file("roles/instruct_team/tasks/main.yml", "- ansible.builtin.debug: {msg: '{{ instruct_team_colour }}'}\n")
    roles = ["instruct_team", {"role": ROLE, "vars": NEEDED}]

    run = ansible.playbook([_play(hosts=entry["name"], roles=roles)], *_given(instruct_team_colour="red"))

    run.assert_quiet()
    assert len(messages_of(ansible.sandbox, entry)) == 1


def test_the_role_runs_twice_in_a_play(ansible: Ansible) -> None:
    entry = awake(ansible.sandbox)[0]
    roles = [{"role": ROLE, "vars": {**NEEDED, "instruct_content": text}} for text in ("One.", "Two.")]

    run = ansible.playbook([_play(hosts=entry["name"], roles=roles)])

    run.assert_quiet()
    assert [message["content"] for message in messages_of(ansible.sandbox, entry)] == ["One.", "Two."]


@pytest.mark.parametrize(
    ("playbook", "wrong", "part"),
    [
        ("stop", {"stop_concurrency": "many"}, "stop_concurrency: must be of the type int, got 'many'"),
        ("stop", {"stop_turns": "maybe"}, "stop_turns: must be of the type bool, got 'maybe'"),
        ("stop", {"stop_campaigns": {"a": 1}}, "stop_campaigns: must be a list, got {'a': 1}"),
        ("stop", {"stop_agent_id": ["a"]}, "stop_agent_id: must be a text, not a list or dictionary"),
        ("audit", {"audit_rules": "mode"}, "audit_rules: must be a dict, got 'mode'"),
        (
            "approvals",
            {"approvals_reason": "{{ nothing }}"},
            "approvals_reason: cannot be read: 'nothing' is undefined",
        ),
        ("instruct", {"instruct_rate": "fast"}, "instruct_rate: must be a number, got 'fast'"),
        ("self_update", {"self_update_gate": "perhaps"}, "self_update_gate: must be of the type bool, got 'perhaps'"),
        ("report", {"report_allow_empty": "x"}, "report_allow_empty: must be of the type bool, got 'x'"),
    ],
)
def test_a_value_of_another_type_is_refused(ansible: Ansible, playbook: str, wrong: dict[str, Any], part: str) -> None:
    _refused(ansible, ansible.playbook(f"{COLLECTION}.{playbook}", *_given(**wrong)), part)


def test_the_values_are_those_of_the_first_host_that_the_playbook_acts_on(ansible: Ansible) -> None:
    """The first host of the inventory is another one, which has other variables."""
    ansible.file("inventory/a-first.yaml", "all: {hosts: {aaa: {stop_mode: strict, stop_campaigns: autumn}}}\n")
    ansible.file("inventory/group_vars/letta.yml", "stop_campaigns: spring, summer\nstop_turns: false\n")
    source = ansible.source("inventory/fleet.letta.yml")

    run = ansible.playbook(
        f"{COLLECTION}.stop",
        *_given(stop_ledger=str(ansible.directory / "ledger"), stop_agent_id=AGENT),
        source=source.parent,
    )

    run.assert_quiet()
    found = run.result("Check the variables")["variables"]
    assert (found["stop_campaigns"], found["stop_turns"], "stop_mode" in found) == (["spring", "summer"], False, False)


def test_an_error_names_the_variable_that_an_option_is_set_with(ansible: Ansible) -> None:
    name = awake(ansible.sandbox)[0]["name"]
    told = {"instruct_agent_id": AGENT, "instruct_content": [5]}

    of_the_role = ansible.playbook([_play(hosts=name, roles=[{"role": ROLE, "vars": told}])])
    of_a_playbook = ansible.playbook(f"{COLLECTION}.stop", *_given(stop_agent_id=AGENT, stop_answer_timeout=0))
    of_a_task = ansible.task("send_message", targets=[name], content=["mind stop_hosts", 5], agent_id=AGENT)

    _refused(ansible, of_the_role, "content: ", "(set with the variable instruct_content)")
    _refused(
        ansible,
        of_a_playbook,
        "answer_timeout: must be more than 0, got 0.0 (set with the variable stop_answer_timeout)",
    )
    of_a_task.assert_error("content: ")
    assert "set with" not in of_a_task.output
