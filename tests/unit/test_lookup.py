"""What the lookup does where it is rendered without a task. Tasks are in tests/integration/test_device_facts.py."""

from __future__ import annotations

import pytest
from ansible import constants
from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ansible_collections.fleetops.environments.plugins.lookup.environments import LookupModule


def test_a_lookup_outside_of_a_task_refuses_the_names_of_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_INJECT_FACT_VARS", "true")
    monkeypatch.setattr(constants, "INJECT_FACTS_AS_VARS", True)
    url = "http://127.0.0.1:1"
    variables = {"ansible_facts": {"letta_base_url": url}, "letta_base_url": url, "ansible_letta_base_url": url}
    lookup = LookupModule(loader=DataLoader(), templar=Templar(DataLoader()))

    with pytest.raises(AnsibleLookupError) as caught:
        lookup.run([], variables)

    assert str(caught.value) == "letta_base_url: cannot be told from a fact here; give the lookup the option base_url"
