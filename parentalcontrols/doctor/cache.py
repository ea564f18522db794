"""Checks of the Redis or Valkey server."""

import secrets
import statistics
import time
from typing import Any, cast

from django.core.cache import cache
from django_redis import get_redis_connection
from redis import Redis
from redis.exceptions import RedisError

from parentalcontrols.doctor import Finding, check, ok, problem, warning
from parentalcontrols.doctor.clocks import judged_skew

_OLDEST = 7
_ROUNDS = 10
#: Milliseconds for there and back: what costs heartbeats, and what the service takes for an outage.
_SLOW, _AWAY = 5.0, 50.0


def _redis() -> Redis:
    return cast(Redis, get_redis_connection("default"))


def _info(section: str) -> dict[str, Any]:
    found: dict[str, Any] = _redis().info(section)
    return found


@check("cache")
def reachable() -> Finding:
    """It answers, and its version is one that is tested."""
    try:
        server = _info("server")
    except (RedisError, OSError) as error:
        return problem(
            f"it does not answer ({type(error).__name__})",
            "Look whether it runs and whether REDIS_URL is right. Until then every heartbeat asks "
            "the database once more.",
        )
    told = f"Redis {server['redis_version']}"
    if "valkey_version" in server:
        told = f"Valkey {server['valkey_version']}"
    if int(str(server["redis_version"]).split(".")[0]) < _OLDEST:
        return problem(told, f"Upgrade it to Redis {_OLDEST} or newer, or to Valkey.")
    return ok(told)


@check("cache round trip")
def round_trip() -> Finding:
    """What is put there comes back, soon."""
    key, durations = f"doctor:{secrets.token_hex(8)}", []
    for _ in range(_ROUNDS):
        value = secrets.token_hex(8)
        began = time.perf_counter()
        cache.set(key, value, 10)
        found = cache.get(key)
        durations.append((time.perf_counter() - began) * 500)
        if found != value:
            return problem(
                "what was put there did not come back",
                "Look for another service that empties it, or for a replica that is written to.",
            )
    cache.delete(key)
    median = statistics.median(durations)
    told = f"{median:.1f} ms there and back"
    if median > _AWAY:
        return problem(told, "Bring it nearer: after 100 ms the service does without it.")
    if median > _SLOW:
        return warning(told, "Bring it nearer: every heartbeat asks it.")
    return ok(told)


@check("cache memory")
def memory() -> Finding:
    """A full cache makes room instead of refusing."""
    found = _info("memory")
    most, policy = int(found["maxmemory"]), str(found["maxmemory_policy"])
    if not most:
        return warning(
            "without a limit: it can take all memory of its host",
            "Set maxmemory (64mb holds 100,000 profiles) and maxmemory-policy allkeys-lru.",
        )
    told = f"{most // 2**20} MiB, {policy}"
    if policy == "noeviction":
        return problem(
            told, "Set maxmemory-policy allkeys-lru: a full one refuses what it is told."
        )
    return ok(told)


@check("cache clock")
def clock() -> Finding:
    """Its clock says how long entries live; one that is off is a sign of a host without NTP."""
    before = time.time()
    seconds, microseconds = _redis().time()
    after = time.time()
    theirs = seconds + microseconds / 1e6
    return judged_skew(theirs - (before + after) / 2, after - before, "the cache")
