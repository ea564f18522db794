"""The table of results says what the runs' figures say."""

from pathlib import Path

import pytest

from tests.faults import results, table
from tests.faults.results import Result

HUNG = Result(
    name="valkey-hung",
    taken=1000,
    refused=20,
    longest_beat_seconds=0.5,
    recovery_seconds=0.2,
    figures={"a figure": "7"},
)
WORSE = Result(
    name="valkey-hung", taken=500, longest_beat_seconds=2.5, recovery_seconds=1.4, dishonest=3
)
LEFT_OUT = Result(name="clock-stepped", skipped="no library")


def test_of_several_runs_beats_are_summed_and_the_longest_time_is_told() -> None:
    lines = table.table([[HUNG, LEFT_OUT], [WORSE]]).splitlines()
    assert "| Valkey hung | 2 | 1,500 | 20 | 0 | 2.50 s | 1.4 s | 0 | 0 | 3 | 1 of 2 |" in lines
    (left_out,) = [line for line in lines if "no library" in line]
    assert left_out.count("|") == lines[0].count("|")


def test_figures_stand_between_the_markers_however_often_they_are_written() -> None:
    document = f"before\n{table.BEGIN}\n{table.END}\nafter\n"
    once = table.put_into(document, table.table([[HUNG]]))
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert table.put_into(once, table.table([[HUNG]])) == once
    with pytest.raises(ValueError, match="markers"):
        table.put_into("no markers", "")


def test_a_run_with_a_failure_is_told_by_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAULT_RESULTS", str(tmp_path))
    results.write(HUNG)
    assert table.main([str(tmp_path)]) == 0
    assert "a figure 7" in capsys.readouterr().out
    results.write(WORSE)
    assert table.main([str(tmp_path)]) == 1
    results.forget(table.SCENARIOS)
    assert list(results.read(tmp_path)) == []


def test_the_document_has_its_place_for_the_figures() -> None:
    document = Path(__file__).parents[2] / "docs" / "reliability.md"
    assert table.put_into(document.read_text(encoding="utf-8"), "")
