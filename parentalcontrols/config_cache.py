"""What a heartbeat must know of a profile, its account and its config, cached on Redis.

The only owner of cached configs. One entry a profile, in the cache `configs` of Django's cache
framework (django-redis): at most `CONFIG_CACHE_ENTRIES` of them, each for `CONFIG_CACHE_SECONDS`,
the least recently used go first. A hit costs no write: who was used is remembered here and told
with the next fill, so recency is exact within a process and approximate across several.

**Never the old one.** A reader that misses puts a *lease* in the entry's place, loads from the
database, and fills the entry only while its lease is still there. An invalidation deletes the
entry, or the lease. So what was loaded before a change can never be put back after it, and a beat
that starts when a change has been answered finds nothing, or what was loaded after the change.

**Without Redis** everything comes from the database. After a failure nobody asks it until a probe
in the background has had an answer and emptied it: an invalidation that was lost meanwhile, this
process's or another's, then leaves nothing behind. No reader waits for a cache that is away. A web
process looks several times a second whether Redis takes what is written (`watch`): one that answers
readers alone, in a failover or a replica, is away like any other. An invalidation that gets no
answer, or is refused, is tried for as long as that takes: when it gives up, all know that Redis is
away, those included whom nobody asked anything meanwhile. What only a process lost that died, or
that alone was cut off, the time to live bounds.
"""

import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from threading import Lock, Thread
from typing import Final, cast
from uuid import UUID

import msgspec
from django.conf import settings
from django.core.cache import caches
from django.db import connection
from django.db.models import QuerySet
from django_redis.cache import RedisCache
from redis import Redis
from redis.commands.core import Script
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from adminmetrics import recorder
from parentalcontrols.models import (
    DEFAULT_RESET_HOUR,
    DEFAULT_TIMEZONE,
    DEFAULT_WEEKDAY_LIMIT_MINUTES,
    DEFAULT_WEEKEND_LIMIT_MINUTES,
    Profile,
)

logger = logging.getLogger(__name__)

ALIAS: Final = "configs"
#: Seconds for which a reader that missed may fill: longer than any look-up may take.
_LEASE_SECONDS: Final = 5
#: Seconds between two probes of a Redis that is away.
_PROBE_SECONDS: Final = 0.1
#: Seconds between two looks of a web process at a Redis that answers.
_WATCH_SECONDS: Final = 0.1
#: For how long a key stays that shows whether Redis takes what is written.
_WATCH_KEY_MILLISECONDS: Final = 1000
#: Seconds within which every web process notices that Redis hangs: two looks that time out, and
#: some more.
_NOTICED_SECONDS: Final = 0.5
#: Profiles of which the log tells one by one; of more at a time it tells how many.
_MOST_LINES: Final = 20
_LEASE: Final = b"lease "
#: Part of the keys: raised when what an entry holds changes its form.
_FORM: Final = 1

#: Fills the entries whose lease is still ours, tells who was used since, and makes room.
#:
#: KEYS: the order of use, then the entries. ARGV: the lease, the time to live in milliseconds, the
#: most entries, how many were used since, their keys (oldest use first), a value for each entry.
_FILL: Final = """
local recent, lease, ttl = KEYS[1], ARGV[1], tonumber(ARGV[2])
local most, used = tonumber(ARGV[3]), tonumber(ARGV[4])
local clock = redis.call('TIME')
-- Microseconds, one apart for each key: a score holds them exactly.
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
for i = 1, used do
    redis.call('ZADD', recent, 'XX', 'GT', string.format('%.0f', now + i), ARGV[4 + i])
end
for i = 2, #KEYS do
    if redis.call('GET', KEYS[i]) == lease then
        redis.call('SET', KEYS[i], ARGV[3 + used + i], 'PX', ttl)
        redis.call('ZADD', recent, string.format('%.0f', now + used + i), KEYS[i])
    end
end
-- Whoever was last used longer ago than an entry lives has none any more.
redis.call('ZREMRANGEBYSCORE', recent, '-inf', '(' .. string.format('%.0f', now - ttl * 1000))
redis.call('PEXPIRE', recent, 2 * ttl)
local surplus = redis.call('ZCARD', recent) - most
if surplus > 0 then
    local popped = redis.call('ZPOPMIN', recent, surplus)
    for i = 1, #popped, 2 do
        redis.call('DEL', popped[i])
    end
end
"""


class Config(msgspec.Struct, frozen=True, array_like=True):
    """A child's config as an entry keeps it; `earlier_schedules` is JSON."""

    weekday_limit_minutes: int | None = DEFAULT_WEEKDAY_LIMIT_MINUTES
    weekend_limit_minutes: int | None = DEFAULT_WEEKEND_LIMIT_MINUTES
    reset_hour: int = DEFAULT_RESET_HOUR
    timezone: str = DEFAULT_TIMEZONE
    educational_exempt: bool = True
    earlier_schedules: str = "[]"


class Known(msgspec.Struct, frozen=True, array_like=True, eq=False):
    """A profile with the state of its account. `config` None: an adult, or a child without one."""

    profile_id: UUID
    account_id: UUID
    is_active: bool
    token_version: int
    is_kids: bool
    config: Config | None = None

    @property
    def is_configured(self) -> bool:
        """Whether there is a config where one belongs."""
        return self.config is not None or not self.is_kids


#: Loads profiles with account and config joined, in one query; those that do not exist are absent.
Loader = Callable[[Collection[UUID]], Iterable[Known]]


def profiles_with_configs() -> QuerySet[Profile]:
    """The look-up that makes entries: profile, account and config joined, and no other column."""
    return Profile.objects.select_related("account", "viewing_time_config").only(
        "is_kids",
        *("account__is_active", "account__token_version"),
        *("viewing_time_config__" + name for name in Config.__struct_fields__),
    )


def known(profile: Profile) -> Known:
    """What an entry keeps of a profile that was loaded with account and config."""
    found = getattr(profile, "viewing_time_config", None)
    config = None
    if found is not None:
        config = Config(
            weekday_limit_minutes=found.weekday_limit_minutes,
            weekend_limit_minutes=found.weekend_limit_minutes,
            reset_hour=found.reset_hour,
            timezone=found.timezone,
            educational_exempt=found.educational_exempt,
            earlier_schedules=msgspec.json.encode(found.earlier_schedules).decode(),
        )
    account = profile.account
    return Known(
        profile.id,
        account.id,
        account.is_active,
        account.token_version,
        profile.is_kids,
        config,
    )


def load(profile_ids: Collection[UUID]) -> list[Known]:
    """Profiles as the database has them; one query."""
    return [known(profile) for profile in profiles_with_configs().filter(id__in=profile_ids)]


_decode: Final = msgspec.msgpack.Decoder(Known).decode
_encode: Final = msgspec.msgpack.Encoder().encode


@lru_cache(maxsize=16384)
def _read(value: bytes) -> Known | None:
    """The entry that bytes hold; the same object for the same bytes. None: of another version."""
    try:
        return _decode(value)
    except msgspec.MsgspecError:
        return None


class _Cache:
    """The entries, as one process sees them."""

    def __init__(self) -> None:
        self._lock = Lock()
        # In the order of their use since the last fill, oldest first.
        self._used: dict[str, None] = {}
        self._is_away = False
        self._hangs = False
        self._failures = 0
        self._fill: Script | None = None

    def _redis(self) -> Redis:
        client: Redis = cast(RedisCache, caches[ALIAS]).client.get_client(write=True)
        return client

    def _key(self, name: object) -> str:
        return str(caches[ALIAS].make_key(f"{_FORM}:{name}"))

    # Reading

    def get_many(self, profile_ids: Iterable[UUID], loader: Loader) -> dict[UUID, Known]:
        wanted = list(dict.fromkeys(profile_ids))
        if not wanted:
            return {}
        if connection.in_atomic_block:
            # What a transaction sees may never be committed: it neither uses nor fills entries.
            return _by_id(loader(wanted))
        if self._is_away:
            self._count_misses(wanted)
            return _by_id(loader(wanted))
        lease = _LEASE + secrets.token_bytes(12)
        keys = [self._key(profile_id) for profile_id in wanted]
        found: dict[UUID, Known] = {}
        missing: dict[UUID, str] = {}
        unreadable: set[str] = set()
        try:
            redis = self._redis()
            values = cast(list[bytes | None], redis.mget(keys))
            for profile_id, key, value in zip(wanted, keys, values, strict=True):
                is_entry = value is not None and not value.startswith(_LEASE)
                entry = _read(value) if value is not None and is_entry else None
                if entry is not None:
                    found[profile_id] = entry
                    self._used.pop(key, None)
                    self._used[key] = None
                    continue
                missing[profile_id] = key
                if is_entry:
                    unreadable.add(key)
            self._count_hits(found)
            if not missing:
                return found
            with redis.pipeline(transaction=False) as pipe:
                for key in missing.values():
                    pipe.set(key, lease, nx=key not in unreadable, ex=_LEASE_SECONDS)
                pipe.execute()
        except (RedisError, OSError) as error:
            self._went_away(error)
            missing = {id_: key for id_, key in zip(wanted, keys, strict=True) if id_ not in found}
        self._count_misses(missing)
        loaded = _by_id(loader(list(missing)))
        self._fill_entries(lease, missing, loaded)
        return found | loaded

    def _fill_entries(
        self, lease: bytes, keys: Mapping[UUID, str], loaded: Mapping[UUID, Known]
    ) -> None:
        """Puts what was loaded into the cache, where nothing was invalidated meanwhile."""
        if self._is_away or not loaded:
            return
        with self._lock:
            used, self._used = list(self._used), {}
        ids = list(loaded)
        try:
            redis = self._redis()
            if self._fill is None:
                self._fill = redis.register_script(_FILL)
            self._fill(
                keys=[self._key("recent"), *(keys[id_] for id_ in ids)],
                args=[
                    lease,
                    int(settings.CONFIG_CACHE_SECONDS * 1000),
                    settings.CONFIG_CACHE_ENTRIES,
                    len(used),
                    *used,
                    *(_encode(loaded[id_]) for id_ in ids),
                ],
                client=redis,
            )
        except (RedisError, OSError) as error:
            self._went_away(error)

    def _count_hits(self, ids: Collection[UUID]) -> None:
        recorder.count(recorder.CONFIG_CACHE_HITS, len(ids))
        if ids and logger.isEnabledFor(logging.DEBUG):
            for id_ in ids:
                logger.debug("config_cache_hit", extra={"profile_id": str(id_)})

    def _count_misses(self, ids: Collection[UUID]) -> None:
        recorder.count(recorder.CONFIG_CACHE_MISSES, len(ids))
        if ids and logger.isEnabledFor(logging.DEBUG):
            for id_ in ids:
                logger.debug("config_cache_miss", extra={"profile_id": str(id_)})

    # Invalidating

    def invalidate(self, profile_ids: Iterable[UUID], *, insist: bool) -> None:
        ids = set(profile_ids)
        if not ids:
            return
        recorder.count(recorder.CONFIG_CACHE_INVALIDATIONS, len(ids))
        if len(ids) > _MOST_LINES:
            logger.info("config_cache_invalidated", extra={"count": len(ids)})
        else:
            for id_ in ids:
                logger.info("config_cache_invalidated", extra={"profile_id": str(id_)})
        keys = [self._key(id_) for id_ in ids]
        insist_until = time.monotonic() + _NOTICED_SECONDS
        while not self._deleted(keys):
            # Who does not answer may be back before others have noticed; who is gone has either
            # forgotten, or left connections that are noticed when they are used.
            if not insist or not self._hangs or time.monotonic() >= insist_until:
                return

    def _deleted(self, keys: Collection[str]) -> bool:
        try:
            # Also while Redis is away: it may be back, and others read again already. Both at
            # once: an entry that is filled in between would not be counted.
            with self._redis().pipeline(transaction=True) as pipe:
                pipe.delete(*keys)
                pipe.zrem(self._key("recent"), *keys)
                pipe.execute()
        except (RedisError, OSError) as error:
            self._went_away(error)
            return False
        return True

    def clear(self) -> None:
        redis = self._redis()
        cursor, pattern = 0, self._key("*")
        while True:
            cursor, keys = redis.scan(cursor, match=pattern, count=1000)
            if keys:
                redis.delete(*keys)
            if cursor == 0:
                return

    def size(self) -> int | None:
        if self._is_away:
            return None
        try:
            return int(self._redis().zcard(self._key("recent")))
        except (RedisError, OSError) as error:
            self._went_away(error)
            return None

    # A Redis that is away

    def _went_away(self, error: Exception) -> None:
        with self._lock:
            self._failures += 1
            # One that refuses to write answers readers, who have not noticed either.
            self._hangs = isinstance(error, (RedisTimeoutError, TimeoutError, ResponseError))
            if self._is_away:
                return
            self._is_away = True
        logger.warning("config_cache_unavailable", extra={"cause": type(error).__name__})
        Thread(target=self._await_return, name="config-cache-probe", daemon=True).start()

    def watch(self) -> None:
        """Notices that Redis is away although nobody asks anything; never returns."""
        while True:
            time.sleep(_WATCH_SECONDS)
            if not self._is_away and not self._answers():
                # One more time: it may have been this process that was busy.
                self._answers(for_good=True)

    def _answers(self, *, for_good: bool = False) -> bool:
        try:
            self._write()
        except (RedisError, OSError) as error:
            if for_good:
                self._went_away(error)
            return False
        return True

    def _write(self) -> None:
        """Raises `RedisError` or `OSError` where an invalidation could not be delivered either."""
        self._redis().set(self._key("watch"), b"", px=_WATCH_KEY_MILLISECONDS)

    def _await_return(self) -> None:
        """Asks until Redis lets itself be written to, and empties it before anybody reads again.

        Whatever changed while it was away is committed by then, and is read from the database.
        """
        while True:
            time.sleep(_PROBE_SECONDS)
            failures = self._failures
            try:
                # An empty one is emptied without a write.
                self._write()
                self.clear()
            except (RedisError, OSError):
                continue
            with self._lock:
                if self._failures != failures:
                    continue
                self._is_away = False
            logger.info("config_cache_available")
            return


def _by_id(entries: Iterable[Known]) -> dict[UUID, Known]:
    return {entry.profile_id: entry for entry in entries}


_cache = _Cache()


def get(profile_id: UUID, loader: Loader = load) -> Known | None:
    """What is known of a profile; None where it does not exist."""
    return _cache.get_many([profile_id], loader).get(profile_id)


def get_many(profile_ids: Iterable[UUID], loader: Loader = load) -> dict[UUID, Known]:
    """What is known of profiles, by id; those that do not exist are absent, and never cached.

    One round trip to Redis for all of them, two more and one query for those that are missing
    there. Never raises for the cache's sake; database errors pass as they are.
    """
    return _cache.get_many(profile_ids, loader)


def invalidate(profile_ids: Iterable[UUID], *, insist: bool = True) -> None:
    """Forgets profiles everywhere; called when the change is committed. Never raises.

    What cannot be delivered empties the cache when Redis is back. With `insist` a Redis that does
    not take it is asked for half a second, until every process knows that it is away.
    """
    _cache.invalidate(profile_ids, insist=insist)


def watch() -> None:
    """Lets this web process notice by itself that Redis is away; returns at once."""
    Thread(target=_cache.watch, name="config-cache-watch", daemon=True).start()


def clear() -> None:
    """Forgets everything; raises `RedisError` where Redis is away."""
    _cache.clear()


def size() -> int | None:
    """How many entries there are, for all processes; None where Redis is away."""
    return _cache.size()
