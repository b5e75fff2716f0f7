"""Files that a fan-out leaves behind."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.files import check_writable
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.result_files import write_hosts, write_results

COLUMNS = [
    "host",
    "id",
    "status",
    "client_message_id",
    "agent_id",
    "conversation_id",
    "connection_id",
    "response_message",
    "attempts",
    "duration",
    "reason",
    "error_code",
    "error_message",
]


def result(**changes: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys(COLUMNS[:-2]),
        "host": "alpha",
        "status": "sent",
        "attempts": 1,
        "duration": 0.5,
        "error": None,
        **changes,
    }


FORMULAS = [
    "\n=1",
    "\nx",
    " =1",
    "\xa0=1",
    "\u3000-1",
    *(f"{sign}1" for sign in "\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b"),
]
FAILED = result(host="beta", status="failed", error={"code": "http_400", "message": 'a "quoted", text\nof two lines'})


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_json_lines_hold_every_result_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "report.jsonl"
    results = [result(), FAILED, result(host="gamma", reason="\N{SNOWMAN}")]

    write_results(str(path), results)

    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == results
    assert "\N{SNOWMAN}" in path.read_text(encoding="utf-8")


def test_csv_has_a_column_for_each_part_of_a_result(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"

    write_results(str(path), [result(), FAILED])

    first, second = read_csv(path)
    assert list(first) == COLUMNS
    assert (first["host"], first["attempts"], first["duration"], first["error_code"]) == ("alpha", "1", "0.5", "")
    assert second["error_code"] == "http_400"
    assert second["error_message"] == 'a "quoted", text\nof two lines'


def test_nested_values_of_a_result_are_json_in_csv(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    nested = {"reason": {"b": [1, None]}, "response_message": ["\N{SNOWMAN}"], "conversation_id": []}

    write_results(str(path), [result(**nested)])

    [line] = read_csv(path)
    assert {name: json.loads(line[name]) for name in nested} == nested
    assert line["response_message"] == '["\N{SNOWMAN}"]'


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", *FORMULAS])
def test_no_text_is_a_formula_in_a_spreadsheet(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.csv"

    write_results(str(path), [result(response_message=text, error={"code": "x", "message": text})])

    [line] = read_csv(path)
    assert line["response_message"] == line["error_message"] == f"'{text}"


@given(texts=st.lists(st.text(), max_size=3))
def test_any_text_can_be_read_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    directory = tmp_path_factory.mktemp("results")
    results = [result(reason=text) for text in texts]

    for name in ("report.jsonl", "report.csv"):
        write_results(str(directory / name), results)

    with (directory / "report.jsonl").open(encoding="utf-8", newline="\n") as file:
        assert [json.loads(line)["reason"] for line in file] == texts
    assert [line["reason"].removeprefix("'") for line in read_csv(directory / "report.csv")] == [
        text.removeprefix("'") for text in texts
    ]


def test_no_result_is_an_empty_file(tmp_path: Path) -> None:
    lines, table = tmp_path / "report.jsonl", tmp_path / "report.csv"

    write_results(str(lines), [])
    write_results(str(table), [])

    assert lines.read_text() == ""
    assert table.read_text() == ""


def test_hosts_are_written_one_per_line_for_limit(tmp_path: Path) -> None:
    path = tmp_path / "again.txt"

    write_hosts(str(path), ["alpha", "beta"])
    assert path.read_text() == "alpha\nbeta\n"

    for _time in (1, 2):
        write_hosts(str(path), [])
        assert not path.exists()


def test_a_file_is_replaced_whole_without_leftovers(tmp_path: Path) -> None:
    path = tmp_path / "report.jsonl"
    path.write_text("old\n" * 100)

    write_results(str(path), [result()])

    assert len(path.read_text().splitlines()) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_to_write_is_an_error_without_leftovers(tmp_path: Path) -> None:
    taken = tmp_path / "again.txt"
    taken.mkdir()

    with pytest.raises(OptionError, match=r"^retry_file: cannot write "):
        write_hosts(str(taken), ["alpha"])
    with pytest.raises(OptionError, match=r"^retry_file: cannot remove "):
        write_hosts(str(taken), [])
    with pytest.raises(OptionError, match=r"^result_file: cannot write "):
        write_results(str(tmp_path / "absent" / "report.csv"), [])

    assert list(tmp_path.iterdir()) == [taken]


@pytest.mark.parametrize("name", ["report.jsonl", "report.csv"])
def test_a_file_in_a_writable_directory_can_be_written(tmp_path: Path, name: str) -> None:
    check_writable("result_file", str(tmp_path / name))
    check_writable("retry_file", str(tmp_path / "any.name"))


@pytest.mark.parametrize("name", ["report", "report.json", "report.CSV", "csv", "report.jsonl.gz"])
def test_a_result_file_with_an_unknown_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match=r"^result_file: must end in .jsonl \(JSON Lines\) or .csv, got "):
        check_writable("result_file", str(tmp_path / name))


@pytest.mark.parametrize("option", ["result_file", "retry_file"])
def test_an_unwritable_path_is_refused_before_anything_is_sent(tmp_path: Path, option: str) -> None:
    (tmp_path / "directory.csv").mkdir()
    (tmp_path / "file").touch()
    for name in ("absent/a.csv", "directory.csv", "file/a.csv"):
        with pytest.raises(
            OptionError,
            match=f"^{option}: cannot write .*: (No such file or directory|it is a directory|Not a directory)$",
        ):
            check_writable(option, str(tmp_path / name))


def test_a_name_without_a_directory_is_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    check_writable("result_file", "report.csv")
    write_results("report.csv", [result()])

    assert len(read_csv(tmp_path / "report.csv")) == 1
