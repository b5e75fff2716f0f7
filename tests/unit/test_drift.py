"""`make drift`: what it reads in the packages, what counts as new, and that it knows the collection's own names."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.fleetops.environments.plugins.action.environment_mode import ActionModule
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.client import Query
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.models import Metadata, Row
from tests.checks import drift
from tests.sandbox.seeded import COMMANDS

MODULE = '''
class Connection(BaseModel):
    """One row."""

    id: str
    pod_id: Optional[str] = FieldInfo(alias="podId", default=None)
    mode: Optional[Literal["default", "strict"]] = FieldInfo(alias="currentMode", default=None)

class Params(TypedDict, total=False):
    online_only: Annotated[str, PropertyInfo(alias="onlineOnly")]

Reason: TypeAlias = Literal["end_turn"]
'''
DEVICE = """
// src/permissions/mode.ts
function isMode(value) { return value === "standard" || value === "acceptEdits" || value === "strict"; }
var SUPPORTED_REMOTE_COMMANDS = [ "reload", "dream" ];
const elsewhere = { type: "no_frame_of_a_socket" };
// src/websocket/listener/turn.ts
if (c.type === "sync") send({ type: "sync_response" });
setTurnLoopStatus(runtime, lease, "WAITING_ON_INPUT", {});
createLifecycleMessageBase("loop_error", id);
"""


def test_the_fields_of_an_sdk_have_the_names_of_the_api_and_their_words() -> None:
    assert list(drift.read_module(MODULE)) == [
        "Connection.id",
        "Connection.podId",
        "Connection.currentMode",
        "Connection.currentMode = default",
        "Connection.currentMode = strict",
        "Params.onlineOnly",
        "Reason = end_turn",
    ]


def test_the_words_of_a_device_are_its_modes_commands_frames_and_states() -> None:
    assert sorted(drift.read_device(DEVICE)) == [
        "command dream",
        "command reload",
        "frame sync",
        "frame sync_response",
        "lifecycle message loop_error",
        "loop status WAITING_ON_INPUT",
        "mode acceptEdits",
        "mode standard",
        "mode strict",
    ]


@pytest.mark.parametrize("kind", drift.DEVICE_WORDS)
def test_a_device_whose_code_has_another_form_is_not_taken_for_one_without_words(kind: str) -> None:
    kept = {"mode": "acceptEdits", "command": "SUPPORTED", "frame": "type", "loop status": "LoopStatus"}
    hidden = DEVICE.replace(kept.get(kind, "Lifecycle"), "x")

    with pytest.raises(ValueError, match=f"the device's code has no {kind} where one was"):
        list(drift.read_device(hidden))


def test_only_what_is_not_known_is_new() -> None:
    assert drift.find_new(["b", "a", "c"], ["a", "gone"]) == ["b", "c"]


@pytest.mark.parametrize(("found", "code"), [({"a"}, 0), ({"a", "b"}, 1), (None, 2)])
def test_the_exit_code_says_whether_something_is_new(
    found: set[str] | None, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_site: Path) -> set[str]:
        if found is None:
            raise ValueError("the device's code has no mode")
        return found

    (tmp_path / "drift.txt").write_text("# known\na\ngone\n")
    monkeypatch.setattr(drift, "KNOWN", tmp_path / "drift.txt")
    monkeypatch.setattr(drift, "install", lambda _venv: tmp_path)
    monkeypatch.setattr(drift, "read_installed", read)

    assert drift.main([]) == code


def test_what_the_collection_uses_is_known() -> None:
    known = set(drift.read_known())
    wire = Row.model_config["alias_generator"]
    rows = [f"Connection.{field.alias or wire(name)}" for name, field in Row.model_fields.items()]
    rows += [f"ConnectionMetadata.{field.alias or wire(name)}" for name, field in Metadata.model_fields.items()]
    used = {f"letta-client: environment_list_response {name}" for name in rows}
    parameters = Query(online_only=True, source="local", user_id="u").parameters()
    used |= {f"letta-client: environment_list_params EnvironmentListParams.{name}" for name in parameters}
    used |= {f"letta: mode {mode}" for mode in ActionModule.SPEC["mode"]["choices"]}

    # Devices send these, and the reference does not have them.
    of_devices = ("listenerInstanceId", "self_update", "supported_commands")
    assert {name for name in used - known if not name.endswith(of_devices)} == set()
    assert {name for name in known if name.startswith("letta: command ")} == {
        f"letta: command {name}" for name in COMMANDS
    }
