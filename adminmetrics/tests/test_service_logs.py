"""What the running service writes to its logs, read back from its standard error."""

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import requests

from parentalcontrols import authentication
from parentalcontrols.models import Account
from parentalcontrols.tests.cast import API
from pins.tests.service import LONG, Service, database, gunicorn

EMAIL, PASSWORD, OTHER_PASSWORD = "mia.parent@example.com", "watch-together-7", "watch-apart-88"
PIN, OTHER_PIN, WRONG_PIN = "4711", "2580", "9630"


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    with database() as url:
        yield url


class Lines:
    """The service's standard error, in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def text(self) -> str:
        return self.path.read_text(errors="replace")

    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]


@pytest.fixture
def lines() -> Iterator[Lines]:
    with tempfile.NamedTemporaryFile() as file:
        yield Lines(Path(file.name))


def send(service: Service, method: str, path: str, token: str = "", **options: Any) -> Any:
    headers = {"Connection": "close", "X-Request-ID": "the-story"} | options.pop("headers", {})
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return requests.request(
        method, f"{service.url}{API}{path}", headers=headers, timeout=LONG, **options
    )


def test_an_eventful_day_leaves_no_secret_in_the_logs_at_any_level(
    database_url: str, lines: Lines
) -> None:
    """Log-ins right and wrong, PINs, tokens, nonsense, and faults with personal data in them."""
    tokens = set()
    more = {"WORKERS": "1", "LOG_LEVEL": "DEBUG", "ACCESS_LOG": "/dev/stderr"}
    with (
        lines.path.open("ab") as stderr,
        gunicorn(database_url, stderr=stderr, **more) as service,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):

        def post(path: str, body: Any, token: str = "", status: int = 200) -> Any:
            answer = send(service, "POST", path, token, json=body)
            assert answer.status_code == status, answer.text
            found = answer.json()
            kept = ("access_token", "refresh_token", "pin_token")
            tokens.update(found[name] for name in kept if name in found)
            return found

        credentials = {"email": EMAIL, "password": PASSWORD}
        parent = post("/auth/register", credentials, status=201)["access_token"]
        post("/auth/register", credentials, status=400)
        post("/auth/login", credentials)
        post("/auth/login", credentials | {"password": OTHER_PASSWORD}, status=401)
        child = post("/auth/profiles", {"name": "Mia", "is_kids": True}, parent, 201)["id"]
        device = post(f"/auth/profiles/{child}/token", {}, parent)["access_token"]
        post("/parental-controls/pin", {"new_pin": PIN}, parent)
        post("/parental-controls/pin/verify", {"pin": PIN}, device)
        post("/parental-controls/pin/verify", {"pin": WRONG_PIN}, device, 403)
        post("/parental-controls/pin", {"new_pin": OTHER_PIN, "current_pin": PIN}, parent)
        reset = {"password": OTHER_PASSWORD, "new_pin": PIN}
        post("/parental-controls/pin/reset", reset, parent, 403)
        post("/auth/refresh", {"refresh_token": device}, status=401)
        post("/auth/login", f"{EMAIL} {PASSWORD}", status=400)
        beat = {"profile_id": child, "title_id": child, "device_id": "tv"}
        post("/viewing-time/heartbeat", beat, device, 404)
        connection.execute("ALTER TABLE pins RENAME TO pins_away")
        post("/parental-controls/pin/verify", {"pin": WRONG_PIN}, device, 500)
        connection.execute("ALTER TABLE pins_away RENAME TO pins")
        # A row that the service cannot know of: what the driver tells of it holds the e-mail.
        connection.execute("ALTER TABLE accounts ADD CONSTRAINT x CHECK (email NOT LIKE 'new%')")
        post("/auth/register", {"email": f"new.{EMAIL}", "password": PASSWORD}, status=500)
        connection.execute("ALTER TABLE accounts DROP CONSTRAINT x")
        # Staff looked for a household, and their form is old by now: Django logs that.
        search = f"{service.url}/admin/parentalcontrols/account/?q={EMAIL}"
        referred = {"Connection": "close", "Referer": search}
        assert requests.post(search, headers=referred, timeout=LONG).status_code == 403
    text = lines.text()
    (asked,) = (
        line
        for line in lines.json()
        if line.get("status") == 403 and "bytes" in line and "/admin/" in line["message"]
    )
    assert asked["message"] == "POST /admin/parentalcontrols/account/"
    assert asked["address"] == "127.0.0.1"
    assert asked["request_id"] in {
        line["request_id"] for line in lines.json() if line["logger"] == "django.security.csrf"
    }
    assert len(tokens) == 7
    for secret in (EMAIL, PASSWORD, OTHER_PASSWORD, PIN, OTHER_PIN, WRONG_PIN, *tokens):
        for form in (secret, secret.replace("@", "%40")):
            assert form not in without_noise(text), form
    faults = [line for line in lines.json() if line["level"] == "ERROR"]
    assert len(faults) == 2
    assert {line["request_id"] for line in faults} == {"the-story"}


def without_noise(text: str) -> str:
    """Without what is no secret and holds many digits: ids, times, numbers of processes."""
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[0-9]{5,}\b|[:.,[][0-9]+", "", text)


def test_a_503_is_found_by_its_id(database_url: str, lines: Lines) -> None:
    with (
        lines.path.open("ab") as stderr,
        gunicorn(database_url, stderr=stderr, WORKERS="1") as service,
        psycopg.connect(database_url) as connection,
    ):
        connection.execute("LOCK TABLE accounts")
        beat = {"profile_id": "0" * 8 + "-0000-4000-8000-" + "0" * 12, "device_id": "tv"}
        token = service_token(service)
        answer = send(
            service,
            "POST",
            "/viewing-time/heartbeat",
            token,
            json=beat | {"title_id": beat["profile_id"]},
            headers={"X-Request-ID": "locked"},
        )
        assert (answer.status_code, answer.json()["request_id"]) == (503, "locked")
    told = [line for line in lines.json() if line["message"] == "database_unavailable"]
    assert [line["request_id"] for line in told] == ["locked"]


def service_token(service: Service) -> str:
    """A token of an account that nobody can look up."""
    return authentication.access_token(Account(id=uuid4(), token_version=0))
