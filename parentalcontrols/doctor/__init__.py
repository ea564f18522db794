"""Looks at a deployment from where it is asked, and says what to do; `manage.py doctor` prints it.

A check is a small function that answers a `Finding`. One that cannot be made, because a server is
away, is told as unknown, and the others go on. Nothing is changed but a key in the cache that is
deleted again, and no finding holds a secret, an address with a password, or an e-mail.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib import import_module

from django.db import Error as DatabaseError
from redis.exceptions import RedisError

__all__ = ["CHECKS", "Finding", "State", "check", "examine"]


class State(StrEnum):
    """How serious something is; unknown is what could not be looked at."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, and what to do where it is not fine."""

    state: State
    found: str
    advice: str = ""
    name: str = ""


Check = Callable[[], Finding]

#: All checks by name, in the order in which they are made.
CHECKS: dict[str, Check] = {}


def check(name: str) -> Callable[[Check], Check]:
    """Adds a check under a name that stays as it is: scripts look for it."""

    def add(function: Check) -> Check:
        CHECKS[name] = function
        return function

    return add


def ok(found: str) -> Finding:
    """All is well."""
    return Finding(State.OK, found)


def warning(found: str, advice: str) -> Finding:
    """Worth mending; the service runs."""
    return Finding(State.WARNING, found, advice)


def problem(found: str, advice: str) -> Finding:
    """The service does not run, not safely, or not for long."""
    return Finding(State.PROBLEM, found, advice)


#: Where the checks are, in the order in which they are made.
_MODULES = ("database", "tables", "cache", "environment")


def examine(*names: str) -> Iterator[Finding]:
    """Makes every check, or those of these names, each as it is asked for; none raises."""
    for module in _MODULES:
        import_module(f"{__name__}.{module}")
    for name, make in CHECKS.items():
        if names and name not in names:
            continue
        try:
            found = make()
        except DatabaseError as error:
            found = _unknown("the database does not answer this", error.__cause__ or error)
        except (RedisError, OSError) as error:
            found = _unknown("the cache does not answer", error)
        except Exception as error:  # a fault of a check is no reason to leave the others out
            found = _unknown("the check itself failed", error)
        yield replace(found, name=name)


def _unknown(what: str, error: BaseException) -> Finding:
    # The kind alone: a driver's message can hold addresses and values.
    return Finding(
        State.UNKNOWN,
        f"could not be looked at: {what} ({type(error).__name__})",
        "Mend what else is found, and ask again.",
    )
