"""environment_info: one environment, or a list of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from .conftest import AGENT, Ansible, awake, messages_of, step

ALONE = "localhost,"
OF_A_LIST = ("after", "limit", "all_pages", "online_only", "source", "user_id", "filters")


def _ids(result: dict[str, Any]) -> list[str]:
    return [environment["id"] for environment in result["environments"]]


@pytest.mark.covers("environment_info", "device_id", "missing_ok")
def test_a_device_is_looked_up_by_its_id(ansible: Ansible) -> None:
    sandbox = ansible.sandbox
    first = sandbox.fleet()[0]
    older, newer = [entry for entry in sandbox.fleet() if entry["name"].startswith("spruce-0011")]
    sandbox.age(older["id"], 90)
    odd = sandbox.add_environment(deviceId="a/b c?d#e%2F..", connectionName="odd")
    hostile = sandbox.add_environment(metadata={"gitBranch": "{{ lookup('pipe', 'touch PWNED') }}"}, unheardOf={"x": 1})

    run = ansible.steps(
        step("one", "environment_info", device_id=first["row"]["deviceId"]),
        step("newest", "environment_info", device_id=older["row"]["deviceId"]),
        step("blank", "environment_info", device_id=first["row"]["deviceId"], **dict.fromkeys(OF_A_LIST, "")),
        step("odd", "environment_info", device_id="a/b c?d#e%2F.."),
        {**step("hostile", "environment_info", device_id=hostile["deviceId"]), "register": "hostile"},
        {"name": "show", "ansible.builtin.debug": {"msg": "{{ hostile.environments[0].git_branch }}"}},
        step("missing", "environment_info", device_id="nothing"),
        step("dots", "environment_info", device_id=".."),
        step("missing_ok", "environment_info", device_id="nothing", missing_ok=True),
        source=ALONE,
    )

    row, result = first["row"], run.result("one")
    assert (result["changed"], result["has_next_page"], result["next_after"]) == (False, False, None)
    (environment,) = result["environments"]
    metadata = row["metadata"]
    expected = {
        "id": row["id"],
        "device_id": row["deviceId"],
        "connection_id": row["connectionId"],
        "connection_name": row["connectionName"],
        "listener_instance_id": row["listenerInstanceId"],
        "organization_id": row["organizationId"],
        "user_id": row["userId"],
        "api_key_owner": row["apiKeyOwner"],
        "pod_id": row["podId"],
        "mode": row["currentMode"],
        "os": metadata["os"],
        "version": metadata["lettaCodeVersion"],
        "node_version": metadata["nodeVersion"],
        "self_update": metadata["self_update"],
        "supported_commands": metadata["supported_commands"],
        "online": True,
        "status": "online",
        "updatable": True,
    }
    assert {name: environment[name] for name in expected} == expected
    for name in ("connected_at", "last_heartbeat", "last_seen_at", "first_seen_at", "listed_at"):
        assert environment[name].endswith("Z")
        assert datetime.fromisoformat(environment[name]).utcoffset() is not None
    assert _ids(run.result("newest")) == [newer["id"]]
    assert _ids(run.result("blank")) == [row["id"]]
    assert _ids(run.result("odd")) == [odd["id"]]

    assert run.result("show")["msg"] == "{{ lookup('pipe', 'touch PWNED') }}"
    assert not (ansible.directory / "PWNED").exists()
    assert run.result("hostile")["environments"][0]["extra"] == {"unheardOf": {"x": 1}}

    assert [entry["task"] for entry in run.results if entry["outcome"] == "failed"] == ["missing", "dots"]
    assert run.result("missing")["msg"] == "device_id: there is no environment 'nothing'"
    assert "'..'" in run.result("dots")["msg"]
    assert run.result("missing_ok")["environments"] == []


@pytest.mark.covers(
    "environment_info", "after", "limit", "all_pages", "online_only", "source", "user_id", "filters"
)  # fmt: skip
@pytest.mark.parametrize("arguments", [(), ("--check",)], ids=["run", "check"])
def test_the_options_select_the_list_also_in_check_mode(ansible: Ansible, arguments: tuple[str, ...]) -> None:
    sandbox = ansible.sandbox
    fleet = sandbox.fleet()
    user = next(entry["row"]["userId"] for entry in fleet if "userId" in entry["row"])
    pages = [
        {
            **step("page 1", "environment_info", limit=8, all_pages=False),
            "register": "page_1",
        },
        {
            **step("page 2", "environment_info", limit=8, all_pages=False, after="{{ page_1.next_after }}"),
            "register": "page_2",
        },
        {
            **step("page 3", "environment_info", limit=8, all_pages=False, after="{{ page_2.next_after }}"),
            "register": "page_3",
        },
    ]

    run = ansible.steps(
        step("all", "environment_info"),
        step("all by five", "environment_info", limit=5),
        *pages,
        step("rest", "environment_info", after=fleet[9]["id"], limit=4),
        step("online", "environment_info", online_only=True),
        step("remote", "environment_info", source="remote"),
        step("user", "environment_info", user_id=user),
        step("filter", "environment_info", filters="os == 'darwin'"),
        step("filters", "environment_info", filters=["semver(version, '<0.34')", "contains(['linux'], os)", "online"]),
        step("none", "environment_info", filters=["id == 'nothing'"]),
        step("blank", "environment_info", source="", user_id=" ", after="", device_id="", filters=""),
        source=ALONE,
        arguments=arguments,
    )

    run.assert_quiet()
    everything = [entry["id"] for entry in fleet]
    for name in ("all", "all by five", "blank"):
        result = run.result(name)
        assert _ids(result) == everything
        assert (result["changed"], result["has_next_page"], result["next_after"]) == (False, False, None)
    walked = [run.result(f"page {number}") for number in (1, 2, 3)]
    assert [id_ for page in walked for id_ in _ids(page)] == everything
    assert [len(page["environments"]) for page in walked] == [8, 8, 5]
    assert [page["has_next_page"] for page in walked] == [True, True, False]
    assert [page["next_after"] for page in walked] == [everything[7], everything[15], None]
    assert _ids(run.result("rest")) == everything[10:]

    assert _ids(run.result("online")) == [entry["id"] for entry in fleet if entry["online"]]
    assert _ids(run.result("remote")) == [entry["id"] for entry in fleet if entry["source"] == "remote"]
    assert _ids(run.result("user")) == [entry["id"] for entry in fleet if entry["row"].get("userId") == user]
    metadata = {entry["id"]: entry["row"].get("metadata") or {} for entry in fleet}
    assert _ids(run.result("filter")) == [id_ for id_ in everything if metadata[id_].get("os") == "darwin"]
    old_linux = [
        entry["id"]
        for entry in fleet
        if entry["online"]
        and metadata[entry["id"]].get("os") == "linux"
        and str(metadata[entry["id"]].get("lettaCodeVersion")).startswith(("0.33", "0.25"))
    ]
    assert 0 < len(old_linux) < len(everything)
    assert _ids(run.result("filters")) == old_linux
    assert run.result("none")["environments"] == []

    queries = [request["query"] for request in sandbox.requests("list")]
    assert queries[0] == {"limit": "100"}
    assert queries[1] == {"limit": "5"}
    assert [query["after"] for query in queries[2:6]] == [everything[number] for number in (4, 9, 14, 19)]
    assert {"limit": "100", "onlineOnly": "true"} in queries
    assert {"limit": "100", "source": "remote"} in queries
    assert {"limit": "100", "userId": user} in queries
    assert queries[-1] == {"limit": "100"}


@pytest.mark.covers("environment_info", "name", "missing_ok")
@pytest.mark.parametrize("provider", ["letta", "qoder"])
def test_a_name_selects_all_that_have_it(ansible: Ansible, provider: str) -> None:
    sandbox = ansible.sandbox
    if provider == "letta":
        ids = [sandbox.add_environment(connectionName=name)["id"] for name in ("twin", "twin", "Twin", "twin-2")]
    else:
        ids = [sandbox.qoder.add_environment(name=name)["id"] for name in ("twin", "twin", "Twin", "twin-2")]
    info = {"provider": provider, "name": "twin"}

    run = ansible.steps(
        step("both", "environment_info", **info),
        step("one", "environment_info", **info, filters=f"id == '{ids[1]}'"),
        step("blank", "environment_info", provider=provider, name=" "),
        step("none", "environment_info", provider=provider, name="twi"),
        step("none left", "environment_info", **info, filters="id == 'nothing'"),
        step("missing_ok", "environment_info", provider=provider, name="twi", missing_ok=True),
        source=ALONE,
    )

    assert sorted(_ids(run.result("both"))) == sorted(ids[:2])
    assert _ids(run.result("one")) == [ids[1]]
    assert set(ids) < set(_ids(run.result("blank")))
    assert run.result("none")["msg"] == "name: no environment that was listed is called 'twi'"
    assert run.result("none left")["msg"] == "name: no environment that was listed is called 'twin'"
    assert run.result("missing_ok")["environments"] == []


def test_a_row_makes_a_target_of_a_host_that_no_inventory_has(ansible: Ansible) -> None:
    first, second, *_rest = awake(ansible.sandbox)
    hostile = "{{ lookup('pipe', 'touch PWNED') }}"
    ansible.sandbox.patch(second["id"], connectionName=hostile)
    device = first["row"]["deviceId"]
    found = [
        {**step("one", "environment_info", device_id=device), "register": "one"},
        {**step("all", "environment_info", online_only=True), "register": "everything"},
    ]
    rows = f"{{{{ one.environments + (everything.environments | selectattr('id', 'eq', '{second['id']}')) }}}}"
    add = {
        "name": "add",
        "ansible.builtin.add_host": {
            "name": "{{ item.id }}",
            "groups": "found",
            "fleetops_environment": "{{ item.fleetops_environment }}",
        },
        "loop": rows,
    }
    looked_up = f"query('fleetops.environments.environments', \"device_id == '{device}'\")[0].fleetops_environment"
    show = {
        "name": "show",
        "ansible.builtin.debug": {"msg": f"{{{{ {looked_up} == one.environments[0].fleetops_environment }}}}"},
    }
    whole = {"hosts": "localhost", "gather_facts": False}
    send = [
        step("current", "send_message", content="to {{ inventory_hostname }}", agent_id=AGENT),
        {
            **step("fan out", "send_message", content="all", agent_id=AGENT, targets="{{ groups.found }}"),
            "run_once": True,
        },
    ]

    run = ansible.playbook(
        [{**whole, "tasks": [*found, add, show]}, {**whole, "hosts": "found", "tasks": send}], source=ALONE
    )

    run.assert_quiet()
    assert run.result("show")["msg"] is True
    for entry in (first, second):
        assert [message["content"] for message in messages_of(ansible.sandbox, entry)] == [f"to {entry['id']}", "all"]
    assert not (ansible.directory / "PWNED").exists()


LIST_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "401": ({"fault": "status", "status": 401}, "401 Unauthorized: SANDBOX_FAULT: The sandbox was told to fail"),
    "403": ({"fault": "status", "status": 403, "body": "error_envelope"}, "403 Forbidden: SANDBOX_FAULT"),
    "400": ({"fault": "status", "status": 400, "body": "empty"}, "400 Bad Request: an empty body"),
    "404": ({"fault": "status", "status": 404}, "404 Not Found: SANDBOX_FAULT"),
    "408": ({"fault": "status", "status": 408}, "408 Request Timeout"),
    "429": ({"fault": "status", "status": 429}, "429 Too Many Requests"),
    "429 for an hour": ({"fault": "status", "status": 429, "retry_after": 3600}, "asked to wait 3600 s"),
    "429 until a date": ({"fault": "status", "status": 429, "retry_after_date": 3600}, "asked to wait 3"),
    "500": ({"fault": "status", "status": 500}, "500 Internal Server Error: SANDBOX_FAULT"),
    "502 with HTML": ({"fault": "status", "status": 502, "body": "html"}, "502 Bad Gateway: an HTML page"),
    "503": ({"fault": "status", "status": 503, "body": "empty"}, "503 Service Unavailable: an empty body"),
    "200 with HTML": ({"fault": "html_200"}, "an HTML page"),
    "200 with text": ({"fault": "not_json"}, "instead of JSON"),
    "200 with truncated JSON": ({"fault": "truncated_json"}, "instead of JSON"),
    "200 with NaN": ({"fault": "nan"}, "instead of JSON"),
    "redirect": ({"fault": "redirect"}, "https://elsewhere.invalid/"),
    "too late": ({"fault": "slow", "seconds": 2}, "within the timeout of 0.5 s"),
    "dropped before": ({"fault": "drop_before"}, "dropped"),
    "dropped in the middle": ({"fault": "drop_during"}, "dropped"),
    "reset": ({"fault": "drop_after", "reset": True}, "dropped"),
    "no connections": ({"fault": "no_connections"}, "connections"),
    "no hasNextPage": ({"fault": "no_has_next_page"}, "hasNextPage"),
    "next page after an empty one": ({"fault": "next_page_after_empty"}, "hasNextPage is true on an empty page"),
    # From here on, each fleet has two pages of eleven rows, and the second page fails.
    "repeated cursor": ({"fault": "repeat_cursor"}, "came back"),
    "500 on page 2": ({"fault": "status", "status": 500}, "500 Internal Server Error"),
    "HTML on page 2": ({"fault": "html_200"}, "an HTML page"),
}


@pytest.mark.covers("environment_info", "timeout", "retries")
def test_a_failed_listing_fails_as_a_whole_with_one_line(ansible: Ansible) -> None:
    sandbox = ansible.sandbox
    names = list(LIST_FAULTS)
    second_page = names[names.index("repeated cursor") :]
    calls = 0
    for name, (rule, _said) in LIST_FAULTS.items():
        calls += 2 if name in second_page else 1
        sandbox.add_fault(**rule, route="list", nth=calls)

    run = ansible.steps(
        *(
            step(name, "environment_info", retries=0, timeout=0.5, limit=11 if name in second_page else 100)
            for name in names
        ),
        source=ALONE,
    )

    assert len(sandbox.requests("list")) == calls
    for name, (_rule, said) in LIST_FAULTS.items():
        result = run.result(name)
        (outcome,) = [entry["outcome"] for entry in run.results if entry["task"] == name]
        assert outcome == "failed", name
        assert "environments" not in result, name
        assert said in result["msg"], name
        assert result["msg"].startswith(f"GET {sandbox.url}/v1/environments: "), name
        assert "\n" not in result["msg"], name
    assert "Traceback" not in run.output
    assert sandbox.api_key not in run.output


@pytest.mark.covers("environment_info", "retries", "deadline")
def test_a_listing_is_repeated_after_a_temporary_fault(ansible: Ansible) -> None:
    sandbox = ansible.sandbox
    faults: list[dict[str, Any]] = [
        {"fault": "status", "status": 429, "retry_after": 1},
        {"fault": "status", "status": 500, "body": "html"},
        {"fault": "status", "status": 408},
        {"fault": "drop_before"},
        {"fault": "drop_during"},
    ]
    for number, rule in enumerate(faults, start=1):
        sandbox.add_fault(**rule, route="list", nth=number)
    # After those six calls: a server that needs more time than the deadline.
    sandbox.add_fault("status", route="list", status=429, retry_after=5, nth=7)

    run = ansible.steps(
        step("all", "environment_info", retries=5),
        step("deadline", "environment_info", deadline=2),
        source=ALONE,
    )

    assert _ids(run.result("all")) == [entry["id"] for entry in sandbox.fleet()]
    assert "asked to wait 5 s" in run.result("deadline")["msg"]
    requests = sandbox.requests("list")
    assert len(requests) == 7
    assert requests[1]["at"] - requests[0]["at"] >= 0.9


def test_rows_with_malformed_fields_are_named_in_a_warning_and_kept(ansible: Ansible) -> None:
    sandbox = ansible.sandbox
    ids = [entry["id"] for entry in sandbox.fleet()]
    sandbox.add_fault("invalid_rows", rows=[ids[3], ids[5]], damage="device_missing")

    run = ansible.steps(step("all", "environment_info"), source=ALONE)

    assert run.returncode == 0
    assert (_ids(run.result("all")), run.result("all")["dropped_rows"]) == (ids, 0)
    assert [row["invalid"] for row in run.result("all")["environments"][3:6]] == [["device_id"], [], ["device_id"]]
    assert "WARNING" in run.output
    warning = " ".join(run.output.split())
    for id_ in (ids[3], ids[5]):
        assert f"environment {id_}: device_id: " in warning


@pytest.mark.covers("environment_info", "device_id", "missing_ok")
def test_a_failed_look_up_is_not_a_missing_device(ansible: Ansible) -> None:
    sandbox = ansible.sandbox
    device = sandbox.fleet()[0]["row"]["deviceId"]
    for number, rule in enumerate(
        [{"fault": "status", "status": 500}, {"fault": "html_200"}, {"fault": "truncated_json"}], start=1
    ):
        sandbox.add_fault(**rule, route="retrieve", nth=number)
    sandbox.patch(sandbox.fleet()[1]["id"], connectionName=None)

    run = ansible.steps(
        *(
            step(name, "environment_info", device_id=device, missing_ok=True, retries=0)
            for name in ("500", "HTML", "truncated")
        ),
        step("row", "environment_info", device_id=sandbox.fleet()[1]["row"]["deviceId"], missing_ok=True),
        source=ALONE,
    )

    assert [entry["outcome"] for entry in run.results] == ["failed"] * 3 + ["ok"]
    assert run.result("row")["environments"][0]["invalid"] == ["connection_name"]
    for name, said in (("500", "500 Internal"), ("HTML", "HTML page"), ("truncated", "JSON")):
        assert said in run.result(name)["msg"]
        assert run.result(name)["msg"].startswith(f"GET {sandbox.url}/v1/environments/")
        assert "\n" not in run.result(name)["msg"]


BAD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "limit of nothing": ({"limit": 0}, ("limit", "0")),
    "limit in words": ({"limit": "many"}, ("limit", "many")),
    "an unknown source": ({"source": "cloud"}, ("source", "cloud", "local, remote")),
    "online_only in words": ({"online_only": "perhaps"}, ("online_only", "perhaps")),
    "an unknown option": ({"device": "x"}, ("device",)),
    "missing_ok alone": ({"missing_ok": True}, ("missing_ok", "device_id")),
    "a device and a filter": ({"device_id": "x", "filters": ["online"]}, ("filters", "device_id")),
    "a device and a name": ({"device_id": "x", "name": "alpha"}, ("name", "device_id")),
    "a name that no environment has": ({"name": "nobody"}, ("name: no environment", "'nobody'")),
    "a device and a limit": ({"device_id": "x", "limit": 5}, ("limit", "device_id")),
    "a bad expression": ({"filters": ["mode =="]}, ("filters", "'mode =='")),
    "a name that no row has": ({"filters": ["moode == 'x'"]}, ("filters", "'moode'", "'mode'")),
    "the row taken for a list": ({"filters": ["[0]"]}, ("filters", "'[0]'", "status == 'online'")),
    "a bad range": ({"filters": ["semver(version, 'old')"]}, ("filters", "'old'")),
    "a bad age": ({"filters": ["older_than(last_seen_at, 'week')"]}, ("filters", "'week'")),
    "an unknown function": ({"filters": ["sembver(version, '<1')"]}, ("filters", "sembver")),
    "filters that are a number": ({"filters": 7}, ("filters", "7")),
    "an after that is not there": ({"after": "nothing"}, ("400", "after: no environment 'nothing'")),
    "a base_url that is none": ({"base_url": "ftp://127.0.0.1"}, ("base_url", "ftp://127.0.0.1")),
    "a port that nobody listens on": (
        {"base_url": "http://127.0.0.1:9", "retries": 0}, ("http://127.0.0.1:9/v1/environments", "cannot connect"),
    ),
    "a host that does not exist": (
        {"base_url": "http://nowhere.invalid", "retries": 0, "allow_http": True},
        ("http://nowhere.invalid/v1/environments", "cannot connect"),
    ),
    "a plain port asked for TLS": ({"base_url": "TLS", "retries": 0}, ("https://127.0.0.1:", "TLS failure")),
}  # fmt: skip


def test_a_wrong_option_is_named_with_its_value_in_one_line(ansible: Ansible) -> None:
    tls = ansible.sandbox.url.replace("http:", "https:")
    steps = [
        step(name, "environment_info", **{key: tls if value == "TLS" else value for key, value in options.items()})
        for name, (options, _parts) in BAD.items()
    ]

    run = ansible.steps(*steps, source=ALONE)

    wrong = {
        name: run.result(name)["msg"]
        for name, (_options, parts) in BAD.items()
        if not all(part in run.result(name)["msg"] for part in parts) or "\n" in run.result(name)["msg"]
    }
    assert wrong == {}
    assert {entry["outcome"] for entry in run.results} == {"failed"}
    assert "Traceback" not in run.output

    ansible.task("environment_info", source=ALONE, filters=["moode == 'x'"]).assert_error("filters", "'moode'")
