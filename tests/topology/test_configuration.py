"""The files that operators start the service with: hardened, pinned, nothing unprepared."""

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from django.urls import reverse

from parentalcontrols.views import HASHING_REQUEST_SECONDS
from tests.topology.house import COMPOSE, CONFIGURATION, ROOT, composed, program
from viewingtime import erasure, exports

SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
OURS = ("migrate", "web1", "web2", "chores")


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "cap_add" not in service
    assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")
    if name != "migrate":
        assert int(service["stop_grace_period"].removesuffix("s")) >= 10
    assert service["healthcheck" if name not in {"web1", "web2", "proxy"} else "image"]


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_to_an_exact_version_or_built_here(name: str) -> None:
    service = SERVICES[name]
    if "build" in service:
        assert service["image"].startswith("viewing-time")
    else:
        assert re.fullmatch(r"[a-z/]+:[0-9]+\.[0-9]+(\.[0-9]+)?", service["image"])
    assert service["image"].partition(":")[2] != "latest"


@pytest.mark.parametrize("path", ["Dockerfile", "deploy/compose/Dockerfile"])
def test_both_dockerfiles_stand_on_the_same_pinned_base(path: str) -> None:
    (base,) = re.findall(r"(?m)^ARG BASE=(.+)$", (ROOT / path).read_text())
    assert re.fullmatch(r"debian:[0-9]+\.[0-9]+-slim(@sha256:[0-9a-f]{64})?", base)
    assert base in (ROOT / "Dockerfile").read_text()
    stages = re.findall(r"(?m)^FROM (\S+)", (ROOT / path).read_text())
    assert set(stages) == {"${BASE}"}


def test_instances_start_after_the_migrations_and_behind_the_pooler() -> None:
    for name in ("web1", "web2"):
        needed = SERVICES[name]["depends_on"]
        assert needed["migrate"] == {"condition": "service_completed_successfully"}
        environment = SERVICES[name]["environment"]
        assert "@pgbouncer:6432/" in environment["DATABASE_URL"]
        assert environment["DATABASE_PREPARED"] == "false"
    # Indexes are built concurrently, outside of a pooler's limits.
    for name in ("migrate", "chores"):
        assert "@postgres:5432/" in SERVICES[name]["environment"]["DATABASE_URL"]
    assert SERVICES["web1"]["environment"]["INSTANCE_NAME"] == "web1"
    assert SERVICES["web2"]["environment"]["INSTANCE_NAME"] == "web2"


def test_the_service_is_not_the_databases_superuser() -> None:
    server = SERVICES["postgres"]
    assert "POSTGRES_USER" not in server["environment"], "the image makes it a superuser"
    assert any("role.sql:/docker-entrypoint-initdb.d/" in mounted for mounted in server["volumes"])
    assert (CONFIGURATION / "role.sql").is_file()
    for name in OURS:
        role = "//viewingtime:${SERVICE_PASSWORD}@"
        assert role in SERVICES[name]["environment"]["DATABASE_URL"]
    assert "SERVICE_PASSWORD" in SERVICES["pgbouncer"]["environment"]["DATABASE_PASSWORD"]


def test_the_proxy_waits_longer_than_the_service_may_take() -> None:
    text = (CONFIGURATION / "haproxy.cfg").read_text()
    usual, *_ = re.findall(r"(?m)^    timeout server (\d+)s", text)
    assert int(usual) > HASHING_REQUEST_SECONDS
    waits = re.findall(r"set-timeout server (\d+)s if \{ (path|path_reg) (.+) \}", text)
    for name in ("export", "erase-account", "erase-profile"):
        path = reverse(name, args=[UUID(int=0)] if name == "erase-profile" else [])
        seconds = [
            int(seconds)
            for seconds, kind, told in waits
            if (path in told.split() if kind == "path" else re.search(told, path))
        ]
        assert seconds, path
        assert min(seconds) > max(exports.SECONDS, erasure.SECONDS)


def test_the_proxy_alone_is_published_and_trusted() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["proxy"]
    proxy = SERVICES["proxy"]["networks"]["front"]["ipv4_address"]
    for name in OURS:
        assert SERVICES[name]["environment"]["TRUSTED_PROXIES"] == proxy


@pytest.mark.parametrize("name", OURS)
def test_without_its_secrets_nothing_starts(name: str) -> None:
    for missing in ("POSTGRES_PASSWORD", "SERVICE_PASSWORD", "VALKEY_PASSWORD"):
        secrets = {
            "POSTGRES_PASSWORD": "one",
            "SERVICE_PASSWORD": "two",
            "VALKEY_PASSWORD": "three",
        }
        del secrets[missing]
        text = COMPOSE.read_text()
        assert f"${{{missing}:?" in text
        if missing == "VALKEY_PASSWORD":
            with pytest.raises(AssertionError, match=r"make \.env first"):
                composed(name, secrets)
    # What the service itself needs comes from the same file, and has no default.
    assert SERVICES[name]["env_file"] == [".env"]
    assert "SECRET_KEY" not in SERVICES[name]["environment"]


_READ = re.compile(r"\$\{([A-Z][A-Z0-9_]+)(?::?([-?])([^}]*))?\}")


def told(table: str) -> dict[str, str]:
    """The variables of a table of docs/deployment.md, with their defaults."""
    document = (ROOT / "docs" / "deployment.md").read_text()
    (rows,) = re.findall(rf"(?s)<!-- {table}: compared .*?-->\n(.*?)<!-- end -->", document)
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows.splitlines()[2:]]
    assert all(len(row) == 3 and row[2] for row in cells)
    return {name.strip("`"): default.strip("`").replace("none", "") for name, default, _ in cells}


def read_by(*paths: Path) -> dict[str, str]:
    """The variables that files read as `${NAME:-default}`, with their defaults."""
    found: dict[str, str] = {}
    for path in paths:
        for name, kind, default in _READ.findall(path.read_text()):
            if kind or name not in found:
                found[name] = default if kind == "-" else ""
    return found


def test_what_the_compose_files_read_is_told_with_its_default() -> None:
    assert told("compose") == read_by(COMPOSE, CONFIGURATION / "tls.yml")


def test_what_the_pooler_reads_is_told_with_its_default() -> None:
    assert told("pooler") == read_by(CONFIGURATION / "pgbouncer-start")
    given = SERVICES["pgbouncer"]["environment"]
    assert list(told("pooler"))[: len(given)] == list(given)


def test_what_the_proxy_reads_is_told_with_its_default() -> None:
    text = (CONFIGURATION / "haproxy.cfg").read_text()
    read = set(re.findall(r"\$\{?([A-Z][A-Z0-9_]+)", text))
    (line,) = re.findall(r"(?m)^ENV (.*ERRORS.*)$", (CONFIGURATION / "Dockerfile").read_text())
    image = dict(pair.split("=", 1) for pair in line.split())
    assert told("proxy") == dict.fromkeys(SERVICES["proxy"]["environment"], "") | image
    assert read == told("proxy").keys()


def test_what_the_compose_file_sets_itself_is_told() -> None:
    document = (ROOT / "docs" / "deployment.md").read_text()
    (sentence,) = re.findall(
        r"(?s)but for what the compose file sets itself: (.*?)\. `BASE`", document
    )
    assert set(re.findall(r"`([A-Z_]+)`", sentence)) - {"METRICS_TOKEN"} == {
        name for service in OURS for name in SERVICES[service]["environment"]
    } - {"HTTPS_ONLY"}


def test_make_env_writes_secrets_of_its_own_each_time(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    made = []
    for _ in range(2):
        with path.open("wb") as file:
            command = ["sh", str(CONFIGURATION / "make-env"), "tv.example.com,api.example.com"]
            subprocess.run(command, stdout=file, check=True)
        made.append(dict(re.findall(r"(?m)^([A-Z_]+)=(.*)$", path.read_text())))
    first, second = made
    assert first.pop("ALLOWED_HOSTS") == second.pop("ALLOWED_HOSTS")
    values = [*first.values(), *second.values()]
    assert len(set(values)) == len(values) == 14
    for value in values:
        # Safe in an URL, and without the quotes that docker would take for a part of it.
        assert re.fullmatch(r"[A-Za-z0-9_-]{64}", value)
    refused = subprocess.run(
        ["sh", str(CONFIGURATION / "make-env")], check=False, capture_output=True
    )
    assert refused.returncode == 2
    assert refused.stdout == b""


def test_the_poolers_configuration_takes_any_password_and_is_private(tmp_path: Path) -> None:
    password = 'a"b|c&d\\e'
    started = subprocess.run(
        ["sh", str(CONFIGURATION / "pgbouncer-start")],
        env={
            "PATH": os.environ["PATH"],
            "PGBOUNCER": "true",
            "DATABASE_HOST": "db.example.com",
            "DATABASE_NAME": "viewing|time",
            "DATABASE_USER": "viewingtime",
            "DATABASE_PASSWORD": password,
            "RUNTIME_FOLDER": str(tmp_path),
        },
        check=True,
        capture_output=True,
        text=True,
    )
    assert started.stdout == started.stderr == ""
    users, told = tmp_path / "userlist.txt", tmp_path / "pgbouncer.ini"
    assert users.read_text() == '"viewingtime" "a""b|c&d\\e"\n'
    assert "viewing|time = host=db.example.com port=5432 " in told.read_text()
    assert "@" not in re.sub(r"(?m)^;;.*$", "", told.read_text())
    for path in (users, told):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("missing", ["DATABASE_HOST", "DATABASE_PASSWORD"])
def test_the_pooler_does_not_start_without_its_address_or_password(missing: str) -> None:
    given = {
        "DATABASE_HOST": "db",
        "DATABASE_NAME": "x",
        "DATABASE_USER": "y",
        "DATABASE_PASSWORD": "z",
        missing: "",
    }
    done = subprocess.run(
        ["sh", str(CONFIGURATION / "pgbouncer-start")],
        env={"PATH": os.environ["PATH"], "PGBOUNCER": "true", **given},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert missing in done.stderr


def test_the_proxys_configuration_holds_with_and_without_tls(tmp_path: Path) -> None:
    haproxy = program("haproxy")
    site = tmp_path / "site.pem"
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tv.example.com"
    subprocess.run(
        [*make.split(), "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    site.write_text(certificate.read_text() + key.read_text())
    for tls in ("", str(site)):
        checked = subprocess.run(
            [haproxy, "-c", "-f", str(CONFIGURATION / "haproxy.cfg")],
            env={
                "LISTEN": "127.0.0.1:8443",
                "ERRORS": str(CONFIGURATION),
                "WEB1": "127.0.0.1:1",
                "WEB2": "127.0.0.1:2",
                "TLS_CERTIFICATE": tls,
            },
            check=False,
            capture_output=True,
            text=True,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_what_the_proxy_says_itself_is_what_the_service_says() -> None:
    head, _, body = (CONFIGURATION / "unavailable.http").read_bytes().partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert status == "HTTP/1.1 503 Service Unavailable"
    assert int(headers["Content-Length"]) == len(body)
    assert int(headers["Retry-After"]) > 0
    assert headers["Content-Type"] == "application/problem+json"
    told = yaml.safe_load(body)
    assert (told["status"], told["code"]) == (503, "unavailable")
    assert (told["enforcement"], told["eligible"], told["reason"]) == (
        "blocked",
        False,
        "unavailable",
    )
