"""environment_outcome: each host ends as a dictionary of all of them says."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Ansible, Run, recap_of

SOURCE = "localhost,one,two,three"


def _run_play(ansible: Ansible, outcomes: Any, *arguments: str) -> Run:
    """A play of three hosts that sets a variable once for all hosts and then passes its name."""
    found = {"name": "find out", "ansible.builtin.set_fact": {"found": outcomes}, "run_once": True}
    end = {"name": "end", "fleetops.environments.environment_outcome": {"outcomes": "found"}}
    after = {"name": "after", "ansible.builtin.debug": {"msg": "Still there."}}
    play = {"hosts": "one,two,three", "gather_facts": False, "tasks": [found, end, after]}
    return ansible.playbook([play], *arguments, source=SOURCE)


@pytest.mark.covers("environment_outcome", "outcomes")
@pytest.mark.parametrize("arguments", [(), ("--check",)], ids=["", "check mode"])
def test_each_host_fails_or_passes_under_its_own_name(ansible: Ansible, arguments: tuple[str, ...]) -> None:
    run = _run_play(ansible, {"one": "", "two": "two: failed: {{ '{{' }} 7 * 7 }}"}, *arguments)

    assert run.returncode == 2
    run.assert_error("two: failed: {{ 7 * 7 }}")
    recap = recap_of(run)
    assert {host: (counts["failed"], counts["skipped"]) for host, counts in recap.items()} == {
        "one": (0, 0),
        "two": (1, 0),
        "three": (0, 1),
    }
    assert run.result("end", "three")["msg"] == "three is not in found"
    # Ansible runs no more tasks on a failed host.
    assert {entry["host"] for entry in run.results if entry["task"] == "after"} == {"one", "three"}


@pytest.mark.covers("environment_outcome", "outcomes")
@pytest.mark.parametrize("outcomes", ["one", ["one"], 1])
def test_a_value_other_than_a_dictionary_is_an_error(ansible: Ansible, outcomes: Any) -> None:
    run = _run_play(ansible, outcomes)

    assert run.returncode == 2
    run.assert_error("outcomes: must name a variable that has been set to a dictionary, and 'found' is none")
