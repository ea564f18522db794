"""Checks of the settings and of this host."""

import shutil
import tempfile
from pathlib import Path

from django.conf import settings

from parentalcontrols.doctor import Finding, check, ok, problem, warning

_LONG_ENOUGH = 50
#: Two exports of 100 MiB: those of a million sessions, compressed.
_FREE_BYTES = 200 * 1024**2


@check("demo and debug")
def demo() -> Finding:
    """Neither belongs into production."""
    on = [name for name in ("DEMO", "DEBUG") if getattr(settings, name)]
    if on:
        return problem(f"{' and '.join(on)} on", "Unset it: the demo's passwords are public.")
    return ok("off")


@check("hosts")
def hosts() -> Finding:
    """Host names are named one by one."""
    names = settings.ALLOWED_HOSTS
    if "*" in names:
        return problem("any host is allowed", "Name the hosts that clients use in ALLOWED_HOSTS.")
    local = {"localhost", "127.0.0.1", "[::1]", "testserver"}
    if set(names) <= local:
        return warning(
            "this host's own names alone", "Name the hosts that clients use in ALLOWED_HOSTS."
        )
    return ok(f"{len(names)} named")


@check("https")
def https() -> Finding:
    """Passwords, PINs and tokens travel encrypted."""
    if not settings.HTTPS_ONLY:
        return warning(
            "HTTPS_ONLY is off: cookies of the admin travel in the clear, and no client is told to "
            "insist on HTTPS",
            "Let a proxy end TLS, and set HTTPS_ONLY=true.",
        )
    return ok("HTTPS alone")


@check("secrets")
def secrets() -> Finding:
    """Long, and each of its own; weak ones do not even start. No value is told."""
    values = {
        name: value
        for name in ("SECRET_KEY", "TOKEN_SIGNING_KEY", "PIN_PEPPER", "METRICS_TOKEN")
        if (value := str(getattr(settings, name, "")))
    }
    password = str(settings.DATABASES["default"].get("PASSWORD") or "")
    for name, value in values.items():
        others = [other for other, one in values.items() if one == value and other != name]
        if others or value == password:
            return problem(
                f"{name} is also {' and '.join(others) or 'the password of the database'}",
                "Give each a random value of its own; docs/runbooks.md says what a new one costs.",
            )
    short = [name for name, value in values.items() if len(value) < _LONG_ENOUGH]
    if short:
        return warning(
            f"shorter than {_LONG_ENOUGH} characters: {', '.join(short)}",
            "Make longer ones; docs/runbooks.md says what a new one costs.",
        )
    return ok(f"{len(values)}, long and different")


@check("static files")
def static_files() -> Finding:
    """The admin's and the documentation's files are collected."""
    root = Path(settings.STATIC_ROOT)
    if not (root / "admin" / "css" / "base.css").is_file():
        return warning(
            "not collected: they are served from the packages they come with, and looked up for "
            "each request",
            "Run `manage.py collectstatic --noinput`.",
        )
    return ok("collected")


@check("room for temporary files")
def temporary_files() -> Finding:
    """Exports of large households are written there before they are sent."""
    try:
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
    except OSError:
        return problem(
            "no folder takes temporary files: large exports fail",
            "Mount a writable folder at /tmp, or set TMPDIR.",
        )
    if free < _FREE_BYTES:
        return warning(
            f"{free // 2**20} MiB in {folder}", "Make room: an export can need 100 MiB, twice."
        )
    return ok(f"{free // 2**20} MiB in {folder}")
