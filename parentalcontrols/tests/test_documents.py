"""The documents name tests, files and headings that exist: they cannot rot."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
TABLES = ["docs/requirements.md", "docs/security.md"]
#: What the documents shorten.
FOLDERS = {
    "vt/": "viewingtime/tests/",
    "pc/": "parentalcontrols/tests/",
    "pins/": "pins/tests/",
    "am/": "adminmetrics/tests/",
    "faults/": "tests/faults/",
    "topology/": "tests/topology/",
    "restore/": "tests/restore/",
}
_NAMED = re.compile(r"`((?:[\w./-]*test_\w+\.py)?(?:::\w+)+|[\w./-]*test_\w+\.py)`")


def file_of(short: str) -> Path:
    """The file that a document calls by its short path, or by its whole one."""
    for begins, folder in FOLDERS.items():
        if short.startswith(begins) and not (ROOT / short).exists():
            return ROOT / (folder + short.removeprefix(begins))
    return ROOT / short


@cache
def functions_of(path: Path) -> set[str]:
    """The names of a file's tests; those of a class as `Class::test`."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{m.name}" for m in node.body if isinstance(m, ast.FunctionDef)}
    return found


def named_in(text: str) -> list[tuple[str, str]]:
    """Each file and test that a line names; `::test` is of the file before it on the line."""
    found = []
    for line in text.splitlines():
        file = ""
        for name in _NAMED.findall(line):
            path, _, test = name.partition("::")
            file = path or file
            found.append((file, test))
    return found


@pytest.mark.parametrize("document", TABLES)
def test_every_test_that_a_table_names_exists(document: str) -> None:
    named = named_in((ROOT / document).read_text())
    assert len(named) > 40
    missing = []
    for file, test in named:
        path = file_of(file)
        if not path.is_file() or (test and test not in functions_of(path)):
            missing.append(f"{file}::{test}")
    assert missing == []


def test_no_row_of_the_security_table_is_without_its_place_and_its_test() -> None:
    text = (ROOT / "docs/security.md").read_text().partition("## What is not met")[0]
    rows = [line for line in text.splitlines() if re.match(r"\| (API\d+|V\d+\.\d+)", line)]
    assert {row.split()[1] for row in rows} >= {f"API{n}" for n in range(1, 11)}
    assert len(rows) >= 40
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 4, row
        assert all(cells), row
        assert _NAMED.search(cells[3]), row
    for place in re.findall(r"`([\w/.-]+/[\w.-]+\.(?:py|html|md|css|txt|yml))`", text):
        if "test_" not in place:
            assert (ROOT / place).is_file(), place


# Links


def documents() -> list[Path]:
    """Every page in Markdown that belongs to the repository."""
    folders = ["docs", "benchmarks", "parentalcontrols"]
    found = [page for folder in folders for page in (ROOT / folder).rglob("*.md")]
    return sorted([*ROOT.glob("*.md"), *found])


@cache
def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text())
    headings = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text())
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path) if path else page
        if not there.exists() or (anchor and anchor not in anchors_of(there)):
            broken.append(target)
    assert broken == []


def test_a_link_to_a_heading_that_is_gone_would_be_found() -> None:
    anchors = anchors_of(ROOT / "docs" / "operations.md")
    assert "is-all-well-doctor" in anchors
    assert "settings" not in anchors


def test_a_test_that_is_missing_would_be_found() -> None:
    here = "pc/test_documents.py"
    line = f"| x | `{here}::test_nothing`, `::test_a_test_that_is_missing_would_be_found` |"
    (missing, there) = named_in(line)
    assert missing[1] not in functions_of(file_of(missing[0]))
    assert there[1] in functions_of(file_of(there[0]))
