"""environment_info with Qoder's environments: one environment, or a list."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Ansible, step

ALONE = "localhost,"
# The options of each provider alone, with a valid value.
OF_LETTA: dict[str, Any] = {
    "device_id": "x", "after": "x", "online_only": True, "source": "remote", "user_id": "x",
}  # fmt: skip
OF_QODER: dict[str, Any] = {
    "environment_id": "x", "after_id": "x", "before_id": "x", "include_archived": True,
    "created_at_gte": "2026-05-01T00:00:00Z", "created_at_lte": "2026-05-01T00:00:00Z",
}  # fmt: skip


def look(name: str, **options: Any) -> dict[str, Any]:
    """A task that looks up environments of Qoder."""
    return step(name, "environment_info", provider="qoder", **options)


def _ids(result: dict[str, Any]) -> list[str]:
    return [environment["id"] for environment in result["environments"]]


def _expected_ids(ansible: Ansible, *, archived: bool = True) -> list[str]:
    """The ids of a listing, newest first."""
    entries = reversed(ansible.sandbox.qoder.environments())
    return [entry["id"] for entry in entries if archived or not entry["archived"]]


@pytest.mark.covers("environment_info", "provider", "environment_id", "missing_ok")
@pytest.mark.parametrize("generation", ["seed", "new"])
def test_an_environment_is_looked_up_by_its_id(ansible: Ansible, generation: str) -> None:
    sandbox = ansible.sandbox
    sandbox.settings(qoder_generation=generation)
    entry = sandbox.qoder.environments()[1]
    archived = next(each for each in sandbox.qoder.environments() if each["archived"])

    run = ansible.steps(
        look("one", environment_id=entry["id"]),
        look("blank", environment_id=entry["id"], **dict.fromkeys([*OF_LETTA, "after_id", "limit", "filters"], "")),
        look("archived", environment_id=archived["id"]),
        look("missing", environment_id="env_nowhere"),
        look("missing_ok", environment_id="env_nowhere", missing_ok=True),
        source=ALONE,
    )

    result, row = run.result("one"), entry["row"]
    assert (result["changed"], result["has_next_page"], result["next_after"]) == (False, False, None)
    assert (
        result["environments"]
        == run.result("blank")["environments"]
        == [
            {
                "id": row["id"],
                "type": "environment",
                "name": row["name"],
                "description": row["description"],
                "status": row.get("status"),
                "config": row["config"],
                "config_type": "cloud",
                "networking_type": "unrestricted",
                "packages": {kind: names for kind, names in row["config"]["packages"].items() if kind != "type"},
                "metadata": row["metadata"],
                "archived": False,
                "archived_at": None,
                "created_at": row["created_at"],
                "updated_at": row["updated_at"],
                "extra": {},
                "invalid": [],
                "fleetops_environment": {
                    "provider": "qoder",
                    "id": row["id"],
                    "device_id": row["id"],
                    "connection_id": None,
                    "base_url": sandbox.qoder.url,
                    "status": "online",
                    "self_update": None,
                },
            }
        ]
    )
    assert run.result("archived")["environments"][0]["archived"] is True
    assert run.result("missing")["msg"] == "environment_id: there is no environment 'env_nowhere'"
    assert run.result("missing_ok")["environments"] == []
    assert sandbox.requests("qoder_list") == []


@pytest.mark.covers(
    "environment_info", "provider", "after_id", "before_id", "include_archived", "created_at_gte", "created_at_lte",
    "limit", "all_pages", "filters",
)  # fmt: skip
@pytest.mark.parametrize(("generation", "arguments"), [("seed", ()), ("new", ("--check",))])
def test_the_options_select_the_list_also_in_check_mode(
    ansible: Ansible, generation: str, arguments: tuple[str, ...]
) -> None:
    sandbox = ansible.sandbox
    sandbox.settings(qoder_generation=generation)
    everything = _expected_ids(ansible)
    dated = [entry for entry in sandbox.qoder.environments() if entry["row"].get("created_at")]
    since, until = dated[4]["row"]["created_at"], dated[9]["row"]["created_at"]

    run = ansible.steps(
        look("all"),
        look("archived too", include_archived=True, limit=7),
        look("after", after_id=everything[4], include_archived=True, limit=4),
        look("before", before_id=everything[4], include_archived=True, limit=3),
        look("since", created_at_gte=since, include_archived=True),
        look("between", created_at_gte=since, created_at_lte=until, include_archived=True),
        look("filter", filters="config_type == 'cloud' && archived", include_archived=True),
        source=ALONE,
        arguments=arguments,
    )

    run.assert_quiet()
    for name, ids in {
        "all": _expected_ids(ansible, archived=False),
        "archived too": everything,
        "after": everything[5:],
        "before": everything[:4],
        "since": [entry["id"] for entry in reversed(dated[4:])],
        "between": [entry["id"] for entry in reversed(dated[4:10])],
        "filter": [
            entry["id"]
            for entry in reversed(sandbox.qoder.environments())
            if entry["archived"] and entry["row"]["config"]["type"] == "cloud"
        ],
    }.items():
        result = run.result(name)
        assert _ids(result) == ids, name
        assert (result["changed"], result["has_next_page"], result["next_after"]) == (False, False, None)
        assert ids
    queries = [request["query"] for request in sandbox.requests()]
    assert queries[0] == {"limit": "100"}
    assert queries[1] == {"limit": "7", "include_archived": "true"}


@pytest.mark.covers("environment_info", "all_pages", "after_id", "before_id", "limit")
@pytest.mark.parametrize("generation", ["seed", "new"])
@pytest.mark.parametrize("cursor", ["after_id", "before_id"])
def test_pages_are_read_one_at_a_time_in_either_direction(ansible: Ansible, generation: str, cursor: str) -> None:
    ansible.sandbox.settings(qoder_generation=generation)
    everything = _expected_ids(ansible, archived=False)
    first = {} if cursor == "after_id" else {"before_id": everything[-1]}

    run = ansible.steps(
        {**look("page 1", limit=5, all_pages=False, **first), "register": "page_1"},
        {
            **look("page 2", limit=5, all_pages=False, **{cursor: "{{ page_1.next_after }}"}),
            "register": "page_2",
        },
        look("page 3", limit=5, all_pages=False, **{cursor: "{{ page_2.next_after }}"}),
        source=ALONE,
    )

    run.assert_quiet()
    pages = [run.result(f"page {number}") for number in (1, 2, 3)]
    assert [page["has_next_page"] for page in pages] == [True, True, False]
    if cursor == "after_id":
        assert [id_ for page in pages for id_ in _ids(page)] == everything
        assert [page["next_after"] for page in pages] == [everything[4], everything[9], None]
    else:
        assert [id_ for page in reversed(pages) for id_ in _ids(page)] == everything[:-1]
        assert [page["next_after"] for page in pages] == [everything[-6], everything[-11], None]
    assert len(ansible.sandbox.requests()) == 3


@pytest.mark.covers("environment_info", "created_at_gte", "created_at_lte")
def test_a_time_may_be_written_without_quotes(ansible: Ansible) -> None:
    play = ansible.file(
        "times.yml",
        """
- hosts: localhost
  gather_facts: false
  tasks:
    - name: it
      fleetops.environments.environment_info:
        provider: qoder
        created_at_gte: 2026-01-05T12:00:00Z
        created_at_lte: 2026-01-05 20:00:00+02:00
""",
    )

    ansible.playbook(str(play), source=ALONE).assert_quiet()

    (request,) = ansible.sandbox.requests()
    assert request["query"] == {
        "limit": "100",
        "created_at[gte]": "2026-01-05T12:00:00+00:00",
        "created_at[lte]": "2026-01-05T20:00:00+02:00",
    }


NOT_A_TIME = "must be a time in RFC 3339 such as 2026-01-31T12:00:00Z"
BAD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    **{
        f"Letta's {name}": ({name: value}, (f"{name}: is not for environments of qoder, which take environment_id, ",))
        for name, value in OF_LETTA.items()
    },
    "limit of nothing": ({"limit": 0}, ("limit: must be 1 or more, got 0",)),
    "both cursors": ({"after_id": "x", "before_id": "y"}, ("before_id: cannot go with after_id",)),
    "a date": ({"created_at_gte": "2026-05-01"}, (f"created_at_gte: {NOT_A_TIME}, got '2026-05-01'",)),
    "a time without zone": ({"created_at_lte": "2026-05-01T00:00:00"}, (f"created_at_lte: {NOT_A_TIME}",)),
    "an id and a cursor": (
        {"environment_id": "x", "after_id": "y"}, ("after_id: is for a list and cannot go with environment_id",),
    ),
    "an id and a filter": ({"environment_id": "x", "filters": ["archived"]}, ("filters", "environment_id")),
    "missing_ok alone": ({"missing_ok": True}, ("missing_ok: needs environment_id",)),
    "a field of Letta": ({"filters": ["mode == 'standard'"]}, ("filters", "'mode'")),
    "an unknown provider": ({"provider": "codex"}, ("provider 'codex'", "letta, qoder")),
    "an unknown option": ({"environment": "x"}, ("environment",)),
}  # fmt: skip


@pytest.mark.covers("environment_info", "provider")
def test_a_wrong_option_is_named_before_anything_is_asked(ansible: Ansible) -> None:
    of_letta = {f"Qoder's {name}": {name: value} for name, value in OF_QODER.items()}

    run = ansible.steps(
        *(
            step(name, "environment_info", **{"provider": "qoder", **options})
            for name, (options, _parts) in BAD.items()
        ),
        *(step(name, "environment_info", **options) for name, options in of_letta.items()),
        source=ALONE,
    )

    said = {name: parts for name, (_options, parts) in BAD.items()} | {
        name: (f"{next(iter(options))}: is not for environments of letta, which take device_id, ",)
        for name, options in of_letta.items()
    }
    wrong = {
        name: run.result(name)["msg"]
        for name, parts in said.items()
        if not all(part in run.result(name)["msg"] for part in parts) or "\n" in run.result(name)["msg"]
    }
    assert wrong == {}
    assert {entry["outcome"] for entry in run.results} == {"failed"}
    assert ansible.sandbox.requests() == []


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "400": ({"fault": "status", "status": 400}, "400 Bad Request: invalid_request_error: The sandbox was told to fail"),
    "401": ({"fault": "status", "status": 401}, "401 Unauthorized: authentication_error: "),
    "403": ({"fault": "status", "status": 403}, "403 Forbidden: permission_error: "),
    "404": ({"fault": "status", "status": 404}, "404 Not Found: not_found_error: "),
    "409": ({"fault": "status", "status": 409}, "409 Conflict: conflict_error: "),
    "429": ({"fault": "status", "status": 429}, "429 Too Many Requests: rate_limit_error: "),
    "500": ({"fault": "status", "status": 500}, "500 Internal Server Error: api_error: "),
    "503 of a gateway": ({"fault": "status", "status": 503, "body": "empty"}, "503 Service Unavailable: an empty body"),
    "HTML": ({"fault": "html_200"}, "an HTML page"),
    "a cycle": ({"fault": "repeat_cursor"}, "came back; the pages repeat"),
    "no cursor": ({"fault": "no_cursor"}, "no cursor tells where to go on"),
}


def test_a_failed_listing_fails_as_a_whole_with_one_line(ansible: Ansible) -> None:
    sandbox = ansible.sandbox
    for number, (rule, _said) in enumerate(FAULTS.values(), start=1):
        sandbox.add_fault(**rule, route="qoder_list", nth=2 * number)

    run = ansible.steps(*(look(name, limit=10, retries=0) for name in FAULTS), source=ALONE)

    assert len(sandbox.requests()) == 2 * len(FAULTS)
    for name, (rule, said) in FAULTS.items():
        result = run.result(name)
        assert "environments" not in result, name
        assert said in result["msg"], name
        assert result["msg"].startswith(f"GET {sandbox.qoder.url}/environments: "), name
        assert "\n" not in result["msg"], name
        if rule["fault"] == "status" and "body" not in rule:
            assert "(request_id " in result["msg"], name
    assert sandbox.qoder.key not in run.output


def test_the_connection_uses_the_options_of_qoder(ansible: Ansible) -> None:
    """From the task, then the variables, then the environment; and never from Letta's options."""
    sandbox = ansible.sandbox
    sandbox.qoder.account("second", "key-of-the-second", environments=3, seed=9)
    second = {entry["id"] for entry in sandbox.qoder.environments("second") if not entry["archived"]}
    env = {"QODER_ACCESS_TOKEN": "key-of-nobody", "LETTA_API_KEY": "key-of-nobody-either"}

    run = ansible.steps(
        look("task", api_key="key-of-the-second"),
        {**look("variable"), "vars": {"qoder_api_key": "key-of-the-second", "letta_api_key": "key-of-nobody"}},
        look("environment"),
        source=ALONE,
        env=env,
    )
    older = ansible.steps(
        look("older name"), source=ALONE, env={"QODER_ACCESS_TOKEN": "", "QODER_PAT": "key-of-the-second"}
    )

    for result in (run.result("task"), run.result("variable"), older.result("older name")):
        assert set(_ids(result)) == second
    assert "401 Unauthorized" in run.result("environment")["msg"]
    assert "key-of-" not in run.result("environment")["msg"]


@pytest.mark.covers("environment_info", "max_dropped_rows")
def test_malformed_fields_are_named_and_dropped_rows_are_counted(ansible: Ansible) -> None:
    ids = _expected_ids(ansible, archived=False)
    ansible.sandbox.qoder.patch(ids[0], metadata=["linux"])
    ansible.sandbox.add_fault("invalid_rows", damage="id_number", rows=[ids[1]], route="qoder_list")

    run = ansible.steps(
        look("all", max_dropped_rows=1), look("strict", max_dropped_rows="0%"), look("one", environment_id=ids[0]),
        source=ALONE,
    )  # fmt: skip

    assert _ids(run.result("all")) == [ids[0], *ids[2:]]
    assert run.result("all")["dropped_rows"] == 1
    assert run.result("all")["environments"][0]["invalid"] == ["metadata"]
    assert f"environment {ids[0]}: metadata: " in " ".join(run.output.split())
    assert run.result("strict")["msg"].startswith("max_dropped_rows: 1 of ")
    assert (run.result("one")["dropped_rows"], _ids(run.result("one"))) == (0, [ids[0]])
