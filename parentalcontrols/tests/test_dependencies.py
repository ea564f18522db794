"""What is installed is what is written down, and what serves opens no address and runs no text."""

import ast
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
FILES = ["requirements.txt", "requirements-dev.txt"]
PACKAGES = ["viewingtime", "parentalcontrols", "pins", "adminmetrics"]
#: Commands and the launcher are an operator's own; they start processes and play a client.
OF_OPERATORS = {
    "viewingtime/player",
    "parentalcontrols/launcher.py",
    "parentalcontrols/embedded_servers.py",
    "parentalcontrols/processes.py",
    "parentalcontrols/pooler.py",
    "parentalcontrols/liveness.py",
    "parentalcontrols/gunicorn.conf.py",
}


def lines_of(name: str) -> list[str]:
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("-r ")]


def serving() -> list[tuple[str, ast.Module]]:
    """The modules that answer requests, parsed."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if "/tests/" in name or "/management/" in name or "/migrations/" in name:
                continue
            if not any(name.startswith(one) for one in OF_OPERATORS):
                found.append((name, ast.parse(path.read_text())))
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_requirement_is_one_exact_version(name: str) -> None:
    for line in lines_of(name):
        assert re.fullmatch(r"[A-Za-z0-9_.-]+(\[[a-z,]+\])?==[0-9][A-Za-z0-9.]*", line), line


@pytest.mark.parametrize("name", FILES)
def test_what_is_installed_is_what_is_written(name: str) -> None:
    for line in lines_of(name):
        package, _, wanted = line.partition("==")
        assert version(package.split("[")[0]) == wanted


def test_what_is_installed_fits_together() -> None:
    command = [sys.executable, "-m", "pip", "check", "--disable-pip-version-check"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout


def test_no_code_that_serves_opens_an_address() -> None:
    forbidden = {"requests", "urllib.request", "http.client", "httpx", "aiohttp", "ftplib"}
    checked = 0
    for name, module in serving():
        for node in ast.walk(module):
            if isinstance(node, ast.Import):
                imported = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported = {node.module or ""}
            else:
                continue
            assert not imported & forbidden, (name, imported)
            checked += 1
    assert checked > 300


def test_no_code_that_serves_runs_what_it_is_sent() -> None:
    """Neither as Python nor as a command, nor unpickles it."""
    modules = {"pickle", "marshal", "shelve", "subprocess", "yaml", "xml", "lxml"}
    calls = {"eval", "exec", "compile", "__import__", "system", "popen"}
    for name, module in serving():
        for node in ast.walk(module):
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & modules, name
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in modules, name
            elif isinstance(node, ast.Call):
                function = node.func
                called = getattr(function, "id", None)
                if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                    called = function.attr if function.value.id in {"os", "builtins"} else None
                assert called not in calls, (name, node.lineno)
