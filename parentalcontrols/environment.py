"""Reading the environment: a variable that is missing or wrong stops the start with a sentence.

Every reader notes what it was asked for (`read`), so that the tables of docs/settings.md can be
made from it; `variables.py` says what each one means.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured


class Rate(NamedTuple):
    """So many tries in a window of so many seconds."""

    tries: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Read:
    """What a variable may be, and what it is when it is left out; an empty default is none."""

    kind: str
    default: str = ""
    least: int | None = None
    most: int | None = None


env = environ.Env()
#: Every variable that was read, by name.
read: dict[str, Read] = {}


def text(name: str, default: str = "") -> str:
    """A text as it is."""
    read.setdefault(name, Read("text", default))
    value: str = env.str(name, default)
    return value


def flag(name: str, default: bool = False) -> bool:
    """A boolean variable; anything but a clear yes or no stops the start."""
    read[name] = Read("flag", str(default).lower())
    value = text(name).strip().lower()
    if value in {"1", "true", "yes", "on"}:
        return True
    if value in {"0", "false", "no", "off"}:
        return False
    if not value:
        return default
    raise ImproperlyConfigured(f"{name} is neither true nor false: set it to true or false.")


def number(name: str, default: int, *, least: int, most: int) -> int:
    """A whole number within bounds; anything else stops the start."""
    read[name] = Read("number", str(default), least, most)
    found = text(name, str(default))
    try:
        value = int(found)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise ImproperlyConfigured(
            f"{name} must be a whole number from {least} to {most}: set it so, or leave it out."
        )
    return value


def required(name: str, hint: str) -> str:
    """A text that has to be there."""
    read.setdefault(name, Read("required"))
    value = text(name)
    if not value:
        raise ImproperlyConfigured(f"{name} is not set: {hint}")
    return value


def secret(name: str, purpose: str) -> str:
    """A secret of at least 32 characters, 10 of them different; no default anywhere."""
    value = required(name, f"set it to a random string of 50 characters or more ({purpose}).")
    if len(value) < 32 or len(set(value)) < 10:
        raise ImproperlyConfigured(
            f"{name} is too weak: set it to a random string of 50 characters or more ({purpose})."
        )
    return value


def cache_url(name: str) -> str:
    """The address of a Redis or a Valkey."""
    hint = "set it to redis://[:password@]host:port/0."
    url = required(name, hint)
    if urlsplit(url).scheme not in {"redis", "rediss", "unix"}:
        raise ImproperlyConfigured(f"{name} is no address of a Redis or Valkey server: {hint}")
    return url


def rate(name: str, default: str) -> Rate:
    """`RATELIMIT_<name>` as `count/period`, where a period is as in 30s, 15m, 1h or d."""
    read[f"RATELIMIT_{name}"] = Read("rate", default)
    written = text(f"RATELIMIT_{name}", default).strip().lower()
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{0,5})([smhd])", written)
    count, seconds = 0, 0
    if found is not None:
        count = int(found[1])
        seconds = int(found[2] or 1) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[3]]
    if not count or not 1 <= seconds <= 31 * 86400:
        raise ImproperlyConfigured(
            f"RATELIMIT_{name} is no rate: write it as count/period, for example {default}."
        )
    return Rate(count, seconds)


def items(name: str) -> list[str]:
    """The items of a comma-separated variable."""
    return [item.strip() for item in text(name).split(",") if item.strip()]


def networks(name: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Comma-separated addresses or networks."""
    try:
        return [ipaddress.ip_network(item) for item in items(name)]
    except ValueError:
        raise ImproperlyConfigured(
            f"{name} holds what is no address and no network: write 10.0.0.5 or 10.0.0.0/8."
        ) from None


def origins(name: str) -> list[str]:
    """Comma-separated web origins, parsed once (T019)."""
    found = [item.rstrip("/") for item in items(name)]
    for origin in found:
        if not re.fullmatch(r"https?://(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?", origin):
            raise ImproperlyConfigured(
                f"{name} holds {origin!r}, which is no origin: "
                "write https://host[:port], in small letters."
            )
    return found
