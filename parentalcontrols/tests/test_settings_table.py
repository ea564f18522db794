"""Every variable is told: in docs/settings.md, made from what is read, and in .env.example."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from parentalcontrols import environment, settings_tables
from parentalcontrols.environment import Read
from parentalcontrols.variables import INTERNAL, TABLES, Variable

ROOT = Path(__file__).resolve().parents[2]
TOLD = {variable.name for table in TABLES.values() for variable in table}
#: What reads a variable, in whatever file.
_READS = re.compile(
    r"(?:environ\.get|environ\.setdefault|environment\.get|env\.\w+|number|_(?:flag|number|required"
    r"|secret|list|networks|origins|text|cache_url))\(\s*f?[\"']([A-Z][A-Z_]+)[\"']|environ\[\"([A-Z_]+)\"\]"
)
#: Read to be handed on, or by others than the service.
_OTHERS = {"DJANGO_SETTINGS_MODULE"}


def reads(path: str) -> set[str]:
    """The names that a file reads by itself."""
    found = _READS.findall((ROOT / path).read_text())
    return {name for pair in found for name in pair if name} - _OTHERS


def test_the_document_is_what_is_made_of_the_settings() -> None:
    document = settings_tables.DOCUMENT.read_text()
    assert settings_tables.updated(document) == document, "run manage.py settings_table"
    for name in TABLES:
        assert f"<!-- {name}: made by manage.py settings_table -->" in document


def test_a_default_and_bounds_in_the_document_are_those_of_the_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    document = settings_tables.DOCUMENT.read_text()
    changed = Read("number", "17", 3, 99)
    monkeypatch.setitem(environment.read, "DATABASE_POOL_SIZE", changed)
    made = settings_tables.updated(document)
    assert made != document
    (line,) = [x for x in made.splitlines() if x.startswith("| `DATABASE_POOL_SIZE`")]
    assert "| 17 |" in line
    assert "from 3 to 99" in line


@pytest.mark.parametrize(
    "path",
    [
        *("parentalcontrols/settings.py", "parentalcontrols/gunicorn.conf.py"),
        *("parentalcontrols/launcher.py", "parentalcontrols/postgresql/deadline.py"),
        *("parentalcontrols/doctor/database.py",),
    ],
)
def test_what_a_file_reads_is_told(path: str) -> None:
    found = reads(path)
    assert found
    assert found <= TOLD | INTERNAL


def test_what_the_settings_read_is_told_and_nothing_else_is() -> None:
    assert environment.read.keys() <= TOLD | INTERNAL
    unread = {
        variable.name
        for table in TABLES.values()
        for variable in table
        if variable.name not in environment.read
        and (variable.default is None or variable.wrong is None)
    }
    # Without a default there, and no reader to ask, its row could not be made.
    assert not unread
    elsewhere = reads("parentalcontrols/gunicorn.conf.py") | reads("parentalcontrols/launcher.py")
    conditional = {"METRICS_TOKEN", "PYTHON", "TMPDIR"}
    assert environment.read.keys() | elsewhere | conditional >= TOLD


def test_each_is_told_once_and_means_something() -> None:
    everyone = [variable for table in TABLES.values() for variable in table]
    assert len(everyone) == len(TOLD)
    assert not TOLD & INTERNAL
    for variable in everyone:
        for cell in (variable.meaning, variable.default or "", variable.wrong or ""):
            assert "|" not in cell
            assert "\n" not in cell
        assert variable.meaning


def test_what_the_tools_set_is_told_beside_the_tables() -> None:
    document = settings_tables.DOCUMENT.read_text()
    for name in INTERNAL:
        assert f"`{name}" in document, name


def test_the_example_has_every_variable_of_the_service_and_no_other() -> None:
    example = (ROOT / ".env.example").read_text()
    lines = re.findall(r"^#? ?([A-Z][A-Z_]+)=", example, re.MULTILINE)
    named = set(lines)
    # Of two lines the second would win, whatever is written in the first.
    assert len(lines) == len(named)
    launchers = {variable.name for variable in TABLES["launcher"]}
    # Those that docker-compose.yml fills in are no variables of the service's.
    composed = set(re.findall(r"\$\{([A-Z_]+):\?", (ROOT / "docker-compose.yml").read_text()))
    assert named - composed == TOLD - launchers - composed


def test_a_line_of_the_example_means_the_same_to_a_shell_and_to_docker() -> None:
    """docker's --env-file takes a line literally, a shell and docker compose do not."""
    example = ROOT / ".env.example"
    lines = [x for x in example.read_text().splitlines() if x and not x.startswith("#")]
    literally = dict(line.split("=", 1) for line in lines)
    sourced = subprocess.run(
        ["sh", "-c", 'set -a; . "$0"; env -0', str(example)],
        env={"PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    shells = dict(found.split("=", 1) for found in sourced.split("\0") if found)
    assert {name: shells[name] for name in literally} == literally
    for name, value in literally.items():
        assert re.fullmatch(r"[A-Za-z0-9_.,:/?@%+=-]*", value), name


def test_a_table_that_is_none_is_a_fault() -> None:
    with pytest.raises(KeyError):
        settings_tables.table("none")


def test_a_row_says_what_is_refused() -> None:
    assert settings_tables.table("heartbeats").count("no whole number from") == len(
        TABLES["heartbeats"]
    )
    assert isinstance(TABLES["needed"][0], Variable)
    assert "| default |" not in settings_tables.table("needed")
