"""The benchmarks' own arithmetic: what counts as a missed goal, how it is reported, and where the tables go."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import growth
from tests.benchmarks.harness import Comparison, Figures, Goal, Growth, in_turn, less
from tests.benchmarks.report import circumstances, replace_table

DOCUMENT = """\
Before.

<!-- measurements -->
old
<!-- end of measurements -->

<!-- growth -->
<!-- end of growth -->

After.
"""


def compare(ours: list[float], theirs: list[float], goal: Goal) -> Comparison:
    return Comparison("work", "something else", "s", ours, theirs, goal)


@pytest.mark.parametrize(
    ("goal", "ours", "result", "met"),
    [
        (Goal("at most", 0.8), 4.0, "0.80", True),
        (Goal("at most", 0.8), 4.5, "0.90", False),
        (Goal("faster", 10), 0.5, "10.0 times faster", True),
        (Goal("faster", 10), 0.6, "8.3 times faster", False),
        (Goal("more", 100, "MB"), 105.0, "+100 MB", True),
        (Goal("more", 100, "MB"), 106.0, "+101 MB", False),
    ],
)
def test_a_goal_holds_the_median_against_the_others(goal: Goal, ours: float, result: str, met: bool) -> None:
    comparison = compare([ours, 0.0, 1000.0], [5.0, 1.0, 99.0], goal)

    assert (goal.shown(comparison.result), comparison.is_met) == (result, met)


@pytest.mark.parametrize(("ours", "theirs"), [(1.0, -0.1), (-0.1, 1.0)])
def test_a_difference_smaller_than_the_noise_meets_no_goal(ours: float, theirs: float) -> None:
    goals = [Goal("at most", 4), Goal("faster", -100)]

    assert not any(compare([ours], [theirs], goal).is_met for goal in goals)


def test_the_extra_cost_of_one_case_over_another() -> None:
    assert less([5.0, 7.0, 6.0], [2.0, 1.0, 40.0]) == [3.0, 5.0, 4.0]


def test_cases_take_turns_and_every_second_round_runs_backwards() -> None:
    order: list[str] = []

    def action(name: str) -> Figures:
        order.append(name)
        return Figures(cpu=1, wall=len(order), peak=1, output=Path())

    taken = in_turn(3, one=lambda: action("one"), other=lambda: action("other"))

    assert order == ["one", "other", "other", "one", "one", "other"]
    assert [figures.wall for figures in taken["one"]] == [1, 4, 5]


def measuring(monkeypatch: pytest.MonkeyPatch, *comparisons: Comparison) -> None:
    """Replace the measurements of the benchmarks with these."""
    row = Growth(environments=1000, listing=1, listing_cpu=2, fan_out=3, campaign=4, peak=150, empty_peak=100)
    for name in benchmarks.COMPARED:
        found = list(comparisons) if name == "play" else []
        monkeypatch.setitem(benchmarks.COMPARED, name, lambda _scale, _directory, found=found: found)
    monkeypatch.setattr(growth, "run", lambda _scale, _directory: [row])


def test_a_missed_goal_is_named_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    document = tmp_path / "performance.md"
    document.write_text(DOCUMENT)
    missed = Comparison("the play", "`debug`", "CPU, s", [3.0], [2.0], Goal("at most", 1.15))
    measuring(monkeypatch, missed, compare([1.0], [20.0], Goal("faster", 10)))

    code = benchmarks.main([], document)

    said = capsys.readouterr()
    assert code == 1
    lines = [line for line in said.err.splitlines() if line.startswith("missed")]
    assert lines == ["missed: the play, against `debug`: 1.50; the goal is at most 1.15"]
    text = document.read_text()
    assert text.startswith("Before.\n\n<!-- measurements -->\nMeasured on ")
    assert (
        "| the play | `debug` | CPU, s | 3.00 (3.00 to 3.00) | 2.00 (2.00 to 2.00) | 1.50 | at most 1.15 | **no** |"
        in text
    )
    assert "| 1,000 | 1.0 | 2.0 | 3.0 | 4.0 | 150 | 100 |" in text
    assert text.endswith("<!-- end of growth -->\n\nAfter.\n")
    assert "old" not in text


def test_with_all_goals_met_the_exit_code_is_0_and_a_part_leaves_the_document_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    measuring(monkeypatch, compare([1.0], [20.0], Goal("faster", 10)))
    absent = tmp_path / "absent.md"

    codes = [benchmarks.main(given, absent) for given in (["--only", "play"], ["--runs", "1"], ["--size", "5"])]

    assert codes == [0, 0, 0]
    assert not absent.exists()
    assert "20.0 times faster" in capsys.readouterr().out


def test_a_document_without_the_marks_is_an_error() -> None:
    end_first = "<!-- end of growth -->\n<!-- growth -->\n"
    for document in ("nothing", end_first, "<!-- growth -->\n", "<!-- growth -->\n" * 2 + "<!-- end of growth -->\n"):
        with pytest.raises(ValueError, match=r"needs <!-- growth --> and then <!-- end of growth -->, each once"):
            replace_table(document, "growth", "text")


def test_the_documentation_has_the_marks() -> None:
    document = benchmarks.DOCUMENT.read_text()

    for name in ("measurements", "growth"):
        assert "text between" in replace_table(document, name, "text between")


def test_a_measurement_is_described_with_the_machine_and_the_versions() -> None:
    said = circumstances(5)

    for part in (" cores of ", " GiB of memory", "; Python 3.", "ansible-core ", "aiohttp ", "httpx ", "letta-client "):
        assert part in said
