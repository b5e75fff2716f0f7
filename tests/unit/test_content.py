"""The content for a target: the messages that the options of send_message stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.plugin_utils.actions.messages import (
    SOURCES,
    Content,
    choose_source,
    find_source,
    make_content,
    read_text,
    render_template,
)
from ansible_collections.fleetops.environments.plugins.plugin_utils.actions.targets import Item

from .support import environment_of, row

NO_OPTIONS: dict[str, Any] = {**dict.fromkeys(SOURCES), "self_update": False, "client_message_id": None}
NO_OPTIONS["allow_any_manual_command"] = False
VALUES: dict[str, Any] = {
    "content": "hello",
    "content_file": "a.txt",
    "content_template": "a.j2",
    "messages": [{"content": "a", "client_message_id": "m-1"}],
    "approvals": [{"tool_call_id": "call-1", "approve": True, "reason": None, "status": None, "stdout": None}],
    "self_update": True,
}
UPDATABLE = {"supported": True, "writable": True, "manual_command": " npm install -g @letta-ai/letta-code \n"}
STRANGE = {**UPDATABLE, "manual_command": " npm install -g {x} \n"}


def item(self_update: Any = None, **given: Any) -> Item:
    metadata = {} if self_update is None else {"self_update": self_update}
    return Item("alpha", environment_of(row(metadata=metadata)), given)


def content(of: Item | None = None, **options: Any) -> Content:
    """The content that these options give a target; the text of a file or template is its name in capitals."""
    all_options = {**NO_OPTIONS, **options}
    to = of or item()
    source = find_source(to, all_options)
    value = to.given.get(source, all_options[source])
    return make_content(to, source, value.upper() if source.startswith("content_") else value, all_options)


# Which option is used


@pytest.mark.parametrize("source", SOURCES)
def test_the_only_option_given_is_used(source: str) -> None:
    assert choose_source({**NO_OPTIONS, source: VALUES[source]}) == source


def test_without_options_the_entries_of_the_target_are_used() -> None:
    assert choose_source(NO_OPTIONS) is None


@pytest.mark.parametrize("first", SOURCES)
@pytest.mark.parametrize("second", SOURCES)
def test_two_content_options_are_refused_by_name(first: str, second: str) -> None:
    if first != second:
        with pytest.raises(OptionError, match="cannot go with") as raised:
            choose_source({**NO_OPTIONS, first: VALUES[first], second: VALUES[second]})
        assert {first, second} <= set(str(raised.value).replace(":", " ").replace(";", " ").split())


@pytest.mark.parametrize("source", SOURCES)
def test_an_id_goes_with_one_message_only(source: str) -> None:
    options = {**NO_OPTIONS, source: VALUES[source], "client_message_id": "m-1"}
    if source in ("messages", "approvals"):
        with pytest.raises(OptionError, match=f"^client_message_id: cannot go with {source}$"):
            choose_source(options)
    else:
        assert choose_source(options) == source


# The messages of each option


@pytest.mark.parametrize(
    ("options", "text"),
    [({"content": "hello"}, "hello"), ({"content_file": "a.txt"}, "A.TXT"), ({"content_template": "a.j2"}, "A.J2")],
)
def test_a_text_is_one_user_message(options: dict[str, Any], text: str) -> None:
    [message] = content(**options, client_message_id="m-1").messages

    assert message.as_option() == {"role": "user", "content": text, "client_message_id": "m-1", "otid": "m-1"}


def test_text_parts_are_kept() -> None:
    [message] = content(content=[{"type": "text", "text": "a"}, {"text": "b"}]).messages

    assert message.content_option == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


def test_a_generated_id_differs_for_each_target() -> None:
    ids = {content(content="hello").messages[0].client_message_id for _number in range(3)}

    assert len(ids) == 3


@pytest.mark.parametrize("source", ["content", "content_file", "content_template", "self_update"])
def test_the_id_of_the_target_overrides_the_option(source: str) -> None:
    options = {source: VALUES[source], "client_message_id": "from-option"}

    [message] = content(item(UPDATABLE, client_message_id="from-target"), **options).messages

    assert message.client_message_id == "from-target"


@pytest.mark.parametrize("source", ["messages", "approvals"])
def test_the_id_of_the_target_is_refused_where_the_option_is(source: str) -> None:
    with pytest.raises(OptionError, match="client_message_id"):
        content(item(client_message_id="from-target"), **{source: VALUES[source]})


@pytest.mark.parametrize("source", [None, *SOURCES])
def test_the_content_of_the_target_overrides_every_option(source: str | None) -> None:
    options = {} if source is None else {source: VALUES[source]}

    [message] = content(item(UPDATABLE, content="mine"), **options).messages

    assert message.content == "mine"


@pytest.mark.parametrize("given", [VALUES["approvals"], [{"tool_call_id": "call-1", "approve": "yes"}]])
def test_the_answers_of_the_target_override_the_option(given: list[dict[str, Any]]) -> None:
    [message] = content(item(approvals=given), content="hello").messages

    assert message.approvals == ({"type": "approval", "tool_call_id": "call-1", "approve": True},)


@pytest.mark.parametrize("given", [5, "call-1", {"call-1": True}, [None], [["call-1"]], [{}], [{"tool_call_id": 7}]])
def test_answers_of_the_target_in_another_shape_are_refused(given: Any) -> None:
    with pytest.raises(OptionError, match=r"^approvals"):
        content(item(approvals=given))


def test_a_target_has_content_or_answers() -> None:
    with pytest.raises(OptionError, match=r"^approvals: cannot go with content in the entry of alpha$"):
        content(item(content="mine", approvals=VALUES["approvals"]))


def test_messages_are_passed_on_unchanged() -> None:
    messages = [
        {"content": "a", "client_message_id": "m-1"},
        {"approvals": [{"tool_call_id": "call-1", "approve": False}]},
    ]

    first, second = content(messages=messages).messages

    assert first.as_option() == {"role": "user", "content": "a", "client_message_id": "m-1", "otid": "m-1"}
    assert second.approvals[0]["approve"] is False


def test_approvals_are_one_message_without_the_keys_that_were_not_given() -> None:
    tool = {"tool_call_id": "call-2", "status": "success", "tool_return": "done", "stdout": ["a"], "approve": None}

    [message] = content(approvals=[*VALUES["approvals"], tool]).messages

    assert message.as_option() == {
        "type": "approval",
        "approvals": [
            {"type": "approval", "tool_call_id": "call-1", "approve": True},
            {"type": "tool", "tool_call_id": "call-2", "status": "success", "tool_return": "done", "stdout": ["a"]},
        ],
    }


@pytest.mark.parametrize("value", [5, {"text": "a"}, True])
def test_content_other_than_text_is_refused_by_name_and_value(value: Any) -> None:
    for given, options in (({}, {"content": value}), ({"content": value}, {})):
        with pytest.raises(OptionError, match=r"^content: must be a text or a list of text parts, got ") as raised:
            content(item(**given), **options)
        assert repr(value) in str(raised.value)


def test_no_content_at_all_is_refused_and_names_the_host() -> None:
    with pytest.raises(OptionError, match=r"^content: nothing to send to alpha; give one of content, content_file, "):
        content()


@pytest.mark.parametrize(
    "options",
    [{"content": []}, {"content_file": ""}, {"messages": []}, {"messages": [{"content": ""}]}, {"approvals": []}],
)
def test_empty_content_is_refused_by_name(options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(OptionError, match=f"^{name}"):
        content(**options)


# Updates


def test_an_update_instruction_holds_the_command_that_the_environment_reports() -> None:
    [message] = content(item(STRANGE), self_update=True, allow_any_manual_command=True).messages

    assert "\nnpm install -g {x}\n" in message.content
    [message] = content(item(UPDATABLE), self_update=True).messages
    assert "\nnpm install -g @letta-ai/letta-code\n" in message.content


def test_a_command_of_no_known_installer_is_sent_only_if_it_is_allowed() -> None:
    refused = content(item(STRANGE), self_update=True)

    assert refused.messages == []
    assert refused.skip == (
        "manual_command is no installer's command known here (see allow_any_manual_command): npm install -g {x}"
    )


@pytest.mark.parametrize(("installed", "sent"), [("0.34.12", True), ("0.35.0", True), ("0.36.0", False), (None, False)])
def test_a_command_with_a_version_is_sent_only_to_a_device_that_is_known_to_be_no_newer(
    installed: str | None, sent: bool
) -> None:
    said = {**UPDATABLE, "manual_command": "npm install -g @letta-ai/letta-code@0.35.0"}

    made = make_content(item(said), "self_update", True, {**NO_OPTIONS, "self_update": True}, installed)

    assert bool(made.messages) is sent
    assert (made.skip is None) is sent


@pytest.mark.parametrize(
    ("self_update", "reason"),
    [
        (None, "not updatable: reports no self_update support"),
        ({"supported": False, "writable": False}, "not updatable: reports no self_update support"),
        (
            {"supported": False, "writable": True, "reason": "Managed by\npip.", "install_path": "/opt/letta"},
            "not updatable: Managed by pip.; installed in /opt/letta",
        ),
        (
            {"supported": True, "writable": False, "install_path": "/opt/letta", "manual_command": "npm install"},
            "not updatable: reports no self_update support; installed in /opt/letta",
        ),
        ({"supported": True, "writable": True}, "not updatable: reports no manual_command"),
        ({"supported": True, "writable": True, "manual_command": " "}, "not updatable: reports no manual_command"),
    ],
)
def test_a_target_that_cannot_update_itself_is_skipped_with_its_reason(self_update: Any, reason: str) -> None:
    assert content(item(self_update), self_update=True) == Content([], skip=reason)


# Files and templates


def test_a_file_is_read_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("{{ 1 }}\n\N{SNOWMAN} ", encoding="utf-8")

    assert read_text("content_file", str(path)) == "{{ 1 }}\n\N{SNOWMAN} "


@pytest.mark.parametrize("content_of_file", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content_of_file: bytes | None) -> None:
    path = tmp_path / "a.txt"
    if content_of_file is not None:
        path.write_bytes(content_of_file)

    with pytest.raises(OptionError, match=f"^content_file: cannot read {str(path)!r}: "):
        read_text("content_file", str(path))


def render(template: str, directory: Path, search: tuple[str, ...] = (), **variables: Any) -> str:
    templar = Templar(loader=DataLoader())
    return render_template(template, str(directory / "a.j2"), templar, variables, search)


def test_a_template_is_rendered_with_the_targets_variables(tmp_path: Path) -> None:
    text = render("{% for n in names %}{{ n | upper }}\\n{% endfor %}{{ here }}", tmp_path, names=["a", "b"], here=1)

    assert text == "A\\nB\\n1"


def test_a_template_of_one_expression_is_a_text(tmp_path: Path) -> None:
    assert render("{{ number }}", tmp_path, number=7) == "7"


@pytest.mark.parametrize("hostile", ["{{ 7 * 7 }}", "{% raw %}", "{{ lookup('pipe', 'id') }}", "{#"])
def test_text_from_a_device_is_never_a_template(tmp_path: Path, hostile: str) -> None:
    assert render("{{ name }} {{ more.name }}", tmp_path, name=hostile, more={"name": hostile}) == " ".join(
        [hostile] * 2
    )


def test_text_that_the_user_wrote_in_a_variable_is_a_template(tmp_path: Path) -> None:
    assert render("{{ greeting }}", tmp_path, greeting=trust_as_template("hello {{ name }}"), name="{{ 1 }}") == (
        "hello {{ 1 }}"
    )


def test_a_template_finds_other_templates_beside_it_and_in_the_folders_of_the_play(tmp_path: Path) -> None:
    play = tmp_path / "play"
    (play / "templates").mkdir(parents=True)
    (tmp_path / "beside.j2").write_text("beside {{ name }}")
    (play / "templates" / "far.j2").write_text("far {{ name }}")

    text = render("{% include 'beside.j2' %}, {% include 'far.j2' %}", tmp_path, (str(play),), name="a")

    assert text == "beside a, far a"


@pytest.mark.parametrize("template", ["{{ absent }}", "{% if %}", "{{ 1 / 0 }}", "{{ 'a' | no_such_filter }}"])
def test_a_template_that_cannot_be_rendered_is_refused_on_one_line(tmp_path: Path, template: str) -> None:
    with pytest.raises(OptionError, match=r"^content_template: cannot render ") as raised:
        render(template, tmp_path)

    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["hello " * 100, ["hello " * 100]])
def test_a_text_for_many_targets_exists_once_in_memory(content: Any) -> None:
    tagged = trust_as_template(content) if isinstance(content, str) else [{"type": "text", "text": content[0]}]

    first, second = (
        message for _number in range(2) for message in make_content(item(), "content", tagged, NO_OPTIONS).messages
    )

    assert first.client_message_id != second.client_message_id
    assert first.texts == ("hello " * 100,)
    assert first.texts[0] is second.texts[0]
