"""The environment decides; what is missing, weak or wrong stops the start with a sentence."""

import json
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from parentalcontrols import environment

# From Python 3.12 on a fork is warned of where the test runner has threads (pytest-xdist).
pytestmark = pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")

GOOD = {
    "SECRET_KEY": "a-secret-of-the-admin-0123456789-abcdefghij",
    "TOKEN_SIGNING_KEY": "a-secret-of-the-tokens-0123456789-abcdefghij",
    "PIN_PEPPER": "a-secret-of-the-pins-0123456789-abcdefghij",
    "DATABASE_URL": "postgresql://user:word@db.example.com:5432/viewing",
    "REDIS_URL": "redis://cache.example.com:6379/0",
    "ALLOWED_HOSTS": "tv.example.com,api.example.com",
}
SECRETS = ["SECRET_KEY", "TOKEN_SIGNING_KEY", "PIN_PEPPER"]
NEEDED = [*SECRETS, "DATABASE_URL", "REDIS_URL", "ALLOWED_HOSTS"]


def variables_of(without: str, changes: Mapping[str, str]) -> dict[str, str]:
    """Nothing but what a start needs, changed."""
    variables = {"PATH": os.environ["PATH"], **GOOD, **changes}
    variables.pop(without, None)
    return variables


def start(*arguments: str, without: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in that environment."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=settings.BASE_DIR,
        env=variables_of(without, changes),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def loaded(*, without: str = "", **changes: str) -> dict[str, Any]:
    """All settings under those variables; raises what stops the start, warnings included.

    In this process: another one needs longer to begin than to decide.
    """
    variables = variables_of(without, changes)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in list(os.environ):
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr(environment, "read", {})
        # Where there are tests, the settings are the tests'.
        patch.delitem(sys.modules, "pytest")
        return runpy.run_path(str(settings.BASE_DIR / "parentalcontrols" / "settings.py"))


def value_of(name: str, **changes: str) -> Any:
    """What a setting is under those variables, as JSON has it."""
    return json.loads(json.dumps(loaded(**changes)[name]))


def refusal(**changes: str) -> str:
    """The sentence with which the settings refuse to load."""
    with pytest.raises(ImproperlyConfigured) as refused:
        loaded(**changes)
    return str(refused.value)


def test_a_complete_environment_starts() -> None:
    done = start("manage.py", "check")
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("value", [None, ""])
def test_what_is_missing_is_named(name: str, value: str | None) -> None:
    changes = {"without": name} if value is None else {name: value}
    sentence = refusal(**changes)
    assert sentence.startswith(f"{name} is not set")
    assert sentence.endswith(".")


@pytest.mark.parametrize("name", ["SECRET_KEY", "DATABASE_URL"])
def test_manage_py_says_the_sentence_alone(name: str) -> None:
    done = start("manage.py", "check", without=name)
    assert done.returncode != 0
    assert f"{name} is not set" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("value", ["secret", "x" * 31, "a" * 64, "abcabcabc" * 10, "changeme" * 4])
def test_a_weak_secret_is_refused_and_not_repeated(name: str, value: str) -> None:
    sentence = refusal(**{name: value})
    assert sentence.startswith(f"{name} is too weak")
    assert value not in sentence


def test_one_secret_for_two_things_is_refused() -> None:
    sentence = refusal(TOKEN_SIGNING_KEY=GOOD["SECRET_KEY"])
    assert sentence.startswith("TOKEN_SIGNING_KEY equals SECRET_KEY")
    for other in ("SECRET_KEY", "TOKEN_SIGNING_KEY"):
        sentence = refusal(PIN_PEPPER=GOOD[other])
        assert sentence.startswith("PIN_PEPPER equals another secret")
        assert GOOD[other] not in sentence


def test_the_demo_has_no_default_secret_of_its_own_either() -> None:
    """`make run` makes the demo's secrets; none is in the code."""
    for name in SECRETS:
        assert refusal(without=name, DEMO="true").startswith(f"{name} is not set")


def test_the_demo_alone_serves_any_host() -> None:
    assert value_of("ALLOWED_HOSTS", without="ALLOWED_HOSTS", DEMO="1") == ["*"]
    assert value_of("ALLOWED_HOSTS") == ["tv.example.com", "api.example.com"]


@pytest.mark.parametrize("value", ["maybe", "2", "truee", "on off"])
@pytest.mark.parametrize("name", ["DEMO", "HTTPS_ONLY", "RATELIMIT_ENABLED"])
def test_a_switch_is_on_or_off(name: str, value: str) -> None:
    assert refusal(**{name: value}).startswith(f"{name} is neither true nor false")


def test_debug_cannot_be_switched_on() -> None:
    assert value_of("DEBUG", DEBUG="true", DEMO="true") is False


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCESS_TOKEN_SECONDS", "59"),
        ("ACCESS_TOKEN_SECONDS", "an hour"),
        ("REFRESH_TOKEN_SECONDS", "0"),
        ("REQUEST_DEADLINE_MS", "2001"),
        ("MAX_BODY_BYTES", "-1"),
        ("HISTORY_RETENTION_DAYS", "90"),
        ("MAX_BODY_BYTES", "1e6"),
        ("PASSWORD_BCRYPT_ROUNDS", "40"),
        ("PASSWORD_BCRYPT_ROUNDS", "4"),
        ("PIN_BCRYPT_ROUNDS", "9"),
        ("PIN_BCRYPT_ROUNDS", "17"),
        ("PIN_BCRYPT_ROUNDS", "ten"),
        ("HASHING_THREADS", "0"),
        ("HASHING_THREADS", "65"),
        ("HASHING_SLOTS", "0"),
        ("HASHING_SLOTS", "1025"),
        ("HASHING_SLOTS", "8.5"),
        ("HASHING_NICENESS", "-1"),
        ("HASHING_NICENESS", "20"),
        ("LOG_LEVEL", "LOUD"),
        ("CLIENT_SECONDS", "0"),
        ("CLIENT_SECONDS", "301"),
        ("WORKER_CONNECTIONS", "15"),
    ],
)
def test_a_value_out_of_bounds_is_refused(name: str, value: str) -> None:
    assert refusal(**{name: value}).startswith(f"{name} must be")


def test_no_cost_of_hashing_can_be_set_lower_than_is_safe() -> None:
    """Tests run with a lower one; a server cannot be told that it is a test."""
    for name in ("PASSWORD_BCRYPT_ROUNDS", "PIN_BCRYPT_ROUNDS"):
        assert value_of(name) == value_of(name, TESTING="true") == 10
        assert value_of(name, **{name: "12"}) == 12
        assert refusal(**{name: "4"}, TESTING="true", DEMO="true").startswith(name)


def test_hashing_leaves_half_of_the_threads_to_requests() -> None:
    assert value_of("HASHING_SLOTS") == value_of("HASHING_SLOTS", THREADS="64") == 8
    assert value_of("HASHING_SLOTS", THREADS="4") == 2
    assert value_of("HASHING_SLOTS", THREADS="1") == 1
    assert value_of("HASHING_SLOTS", THREADS="4", HASHING_SLOTS="3") == 3
    assert refusal(THREADS="0").startswith("THREADS must be")


# Limits, and whose word is taken for an address

RATES = [
    *("LOGIN_ACCOUNT", "LOGIN_ADDRESS", "PIN_RESET", "PIN_RESET_ADDRESS", "PIN_ADDRESS"),
    *("REGISTER_EMAIL", "REGISTER_ADDRESS", "REFRESH_LOGIN", "REFRESH_ADDRESS"),
    *("EXPORT", "EXPORT_ADDRESS"),
]


def test_by_default_guesses_are_limited_and_no_proxy_is_trusted() -> None:
    assert value_of("RATELIMIT_ENABLED") is True
    assert value_of("RATELIMITS") == {
        "LOGIN_ACCOUNT": [10, 900],
        "LOGIN_ADDRESS": [100, 900],
        "PIN_RESET": [5, 1800],
        "PIN_RESET_ADDRESS": [50, 1800],
        "PIN_ADDRESS": [50, 1800],
        "REGISTER_EMAIL": [10, 3600],
        "REGISTER_ADDRESS": [300, 3600],
        "REFRESH_LOGIN": [60, 900],
        "REFRESH_ADDRESS": [300, 900],
        "EXPORT": [30, 3600],
        "EXPORT_ADDRESS": [300, 3600],
    }
    assert value_of("TRUSTED_PROXIES") == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1/s", [1, 1]),
        ("3/30s", [3, 30]),
        ("20/10m", [20, 600]),
        (" 7/H ", [7, 3600]),
        ("999999/31d", [999999, 31 * 86400]),
    ],
)
def test_a_rate_is_a_count_and_a_period(value: str, expected: list[int]) -> None:
    assert value_of("RATELIMITS", RATELIMIT_LOGIN_ACCOUNT=value)["LOGIN_ACCOUNT"] == expected


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "10",
            "10/",
            "/15m",
            "0/15m",
            "-1/15m",
            "10/0m",
            "10/15",
            "10/15w",
            "10/1.5m",
            "ten/m",
        ),
        *("10 / 15m", "10/15m/2", "10/32d", "1000000/m", "\u0661\u0660/m", "none", "unlimited"),
    ],
)
def test_what_is_no_rate_stops_the_start(value: str) -> None:
    sentence = refusal(RATELIMIT_LOGIN_ACCOUNT=value)
    assert sentence.startswith("RATELIMIT_LOGIN_ACCOUNT is no rate")
    assert "10/15m" in sentence
    assert sentence.endswith(".")


@pytest.mark.parametrize("name", RATES)
def test_every_rate_is_a_setting_of_its_own(name: str) -> None:
    assert refusal(**{f"RATELIMIT_{name}": "x"}).startswith(f"RATELIMIT_{name} is no rate")


def test_proxies_are_addresses_and_networks() -> None:
    code = "import parentalcontrols.settings as s; print(*s.TRUSTED_PROXIES)"
    listed = "10.0.0.5, 192.168.0.0/16,,2001:db8::/32 , ::1"
    done = start("-W", "error", "-c", code, TRUSTED_PROXIES=listed)
    assert done.stdout.split() == ["10.0.0.5/32", "192.168.0.0/16", "2001:db8::/32", "::1/128"]


@pytest.mark.parametrize(
    "value", ["*", "proxy.example.com", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "10.0.0.1;10.0.0.2"]
)
def test_a_proxy_that_is_none_stops_the_start(value: str) -> None:
    sentence = refusal(TRUSTED_PROXIES=f"10.0.0.5,{value}")
    assert sentence.startswith("TRUSTED_PROXIES holds what is no address and no network")
    assert sentence.endswith(".")


@pytest.mark.parametrize(
    "value",
    ["mysql://u@h/db", "postgresql://[::1/db", "postgresql://user:pa@ss@/x?unknown=1", "nonsense"],
)
def test_a_database_address_that_is_none_is_refused_and_not_repeated(value: str) -> None:
    sentence = refusal(DATABASE_URL=value)
    assert sentence.startswith("DATABASE_URL")
    assert value not in sentence


def test_a_database_address_without_a_database_is_refused() -> None:
    sentence = refusal(DATABASE_URL="postgresql://user:word@db.example.com:5432")
    assert sentence.startswith("DATABASE_URL names no database")
    assert "word" not in sentence


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://al%40ice:p%2Fw%3A@db.example.com:6543/view%20ing?sslmode=require",
            ("view ing", "al@ice", "p/w:", "db.example.com", "6543"),
        ),
        ("postgresql:///db?host=/run/pg&user=me", ("db", "me", "", "/run/pg", "")),
        ("postgres://me@[::1]:5433/db", ("db", "me", "", "::1", "5433")),
    ],
)
def test_any_address_that_libpq_understands_is_taken(url: str, expected: tuple[str, ...]) -> None:
    found = value_of("DATABASES", DATABASE_URL=url)["default"]
    assert tuple(found[key] for key in ("NAME", "USER", "PASSWORD", "HOST", "PORT")) == expected


# Origins (T019)


@pytest.mark.parametrize("name", ["CORS_ALLOWED_ORIGINS", "CSRF_TRUSTED_ORIGINS"])
@pytest.mark.parametrize(
    "value",
    [
        *("*", "null", "example.com", "//example.com", "ftp://example.com", "https://"),
        *("https://example.com/path", "https://good.example.com,nonsense"),
    ],
)
def test_an_origin_that_is_none_stops_the_start(name: str, value: str) -> None:
    sentence = refusal(**{name: value})
    assert sentence.startswith(name)
    assert "https://host[:port]" in sentence


def test_origins_are_parsed_once_into_a_list() -> None:
    listed = "https://player.example.com, http://localhost:3000/ ,,https://tv.example.com:8443"
    assert value_of("CORS_ALLOWED_ORIGINS", CORS_ALLOWED_ORIGINS=listed) == [
        "https://player.example.com",
        "http://localhost:3000",
        "https://tv.example.com:8443",
    ]


def test_by_default_no_origin_is_allowed() -> None:
    assert value_of("CORS_ALLOWED_ORIGINS") == []


def test_https_brings_secure_cookies_and_hsts() -> None:
    names = "[s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SECURE_HSTS_SECONDS > 0]"
    code = f"import parentalcontrols.settings as s; print({names})"
    for switch, expected in (("true", "True"), ("false", "False")):
        done = start("-c", code, HTTPS_ONLY=switch)
        assert done.stdout.strip() == f"[{', '.join([expected] * 3)}]"


def test_the_server_refuses_to_start_like_the_commands_do() -> None:
    done = start("-c", "import parentalcontrols.wsgi", without="TOKEN_SIGNING_KEY")
    assert done.returncode != 0
    assert "TOKEN_SIGNING_KEY is not set" in done.stderr


def test_gunicorn_says_the_sentence_alone() -> None:
    arguments = ["parentalcontrols.wsgi:application", "-c", "parentalcontrols/gunicorn.conf.py"]
    done = start("-m", "gunicorn", *arguments, without="TOKEN_SIGNING_KEY")
    assert done.returncode == 78
    (sentence,) = done.stderr.strip().splitlines()
    assert sentence.startswith("Configuration: TOKEN_SIGNING_KEY is not set")


@pytest.mark.parametrize(
    "origin",
    ["https://a b", "https://u:p@h", "https://h:x", "https://h?x=1", "https://[::1", "HTTPS://H"],
)
def test_an_origin_that_no_browser_sends_stops_the_start(origin: str) -> None:
    assert refusal(CORS_ALLOWED_ORIGINS=origin).startswith("CORS_ALLOWED_ORIGINS holds")


def test_host_names_may_stand_with_spaces_between() -> None:
    assert value_of("ALLOWED_HOSTS", ALLOWED_HOSTS="a.example, b.example ,") == [
        "a.example",
        "b.example",
    ]


@pytest.mark.parametrize("url", ["nonsense", "http://cache.example.com"])
def test_a_cache_address_of_another_kind_is_refused(url: str) -> None:
    assert refusal(REDIS_URL=url).startswith("REDIS_URL is no address")


# Metrics


def test_by_default_metrics_are_read_on_this_host_alone() -> None:
    assert value_of("METRICS_ACCESS") == value_of("METRICS_ACCESS", METRICS_ACCESS="") == "loopback"
    assert value_of("METRICS_TOKEN") == ""
    assert value_of("METRICS_ENABLED") is True


def test_a_token_for_the_metrics_is_as_strong_as_any_secret() -> None:
    token = "a-token-of-more-than-thirty-two-characters"
    found = value_of("METRICS_TOKEN", METRICS_ACCESS="Token", METRICS_TOKEN=token)
    assert found == token
    assert refusal(METRICS_ACCESS="token").startswith("METRICS_TOKEN is not set")
    sentence = refusal(METRICS_ACCESS="token", METRICS_TOKEN="short")
    assert sentence.startswith("METRICS_TOKEN is too weak")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("METRICS_ACCESS", "everybody"),
        ("METRICS_FLUSH_SECONDS", "0"),
        ("METRICS_FLUSH_SECONDS", "6"),
        ("METRICS_MINUTE_DAYS", "0"),
        ("METRICS_HOUR_DAYS", "29"),
        ("METRICS_DAY_DAYS", "29"),
        ("HEARTBEAT_LOG_SAMPLE", "-1"),
        ("INSTANCE_NAME", "a b"),
        ("INSTANCE_NAME", "x" * 201),
    ],
)
def test_a_setting_of_the_metrics_out_of_bounds_is_refused(name: str, value: str) -> None:
    assert refusal(**{name: value}).startswith(f"{name} must be")


def test_an_instance_is_called_by_its_host_and_port_unless_it_has_a_name() -> None:
    assert value_of("INSTANCE_NAME", INSTANCE_NAME="tv-1") == "tv-1"
    for port, told in (("9000", "9000"), ("", "8000")):
        assert value_of("INSTANCE_NAME", INSTANCE_NAME="", PORT=port).endswith(f":{told}")
