"""The memory that a message to many targets keeps."""

from __future__ import annotations

from .conftest import AGENT, Ansible, awake


def test_a_result_does_not_hold_the_text(ansible: Ansible) -> None:
    names = [entry["name"] for entry in awake(ansible.sandbox)[:3]]

    run = ansible.task(
        "send_message",
        content="a text that is nowhere else",
        agent_id=AGENT,
        targets=names,
        play={"hosts": names[0]},
    )

    assert run.result("it")["counts"]["sent"] == 3
    assert "a text that is nowhere else" not in str({**run.result("it"), "invocation": None})
