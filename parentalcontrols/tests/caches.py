"""A cache server of a test's own, and processes that use it."""

from collections.abc import Callable, Collection
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest

from adminmetrics import recorder
from parentalcontrols import config_cache
from parentalcontrols.config_cache import Known, _Cache
from parentalcontrols.embedded_servers import Valkey


class Process:
    """The config cache as one process sees it, and what it asked the database for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache = _Cache()
        self.loaded: list[set[UUID]] = []
        self._monkeypatch = monkeypatch
        self._counted = recorder.read().counters

    @contextmanager
    def running(self) -> Any:
        """Inside, the module's functions and the signals are this process's."""
        with self._monkeypatch.context() as patch:
            patch.setattr(config_cache, "_cache", self.cache)
            yield self

    def get(self, profile_id: UUID, between: Callable[[], object] = lambda: None) -> Known | None:
        """What the process is told; `between` runs when it has loaded and not yet filled."""

        def loader(profile_ids: Collection[UUID]) -> list[Known]:
            self.loaded.append(set(profile_ids))
            found = config_cache.load(profile_ids)
            between()
            return found

        with self.running():
            return config_cache.get(profile_id, loader)

    def is_told_by_the_cache(self, profile_id: UUID) -> bool:
        """Whether an answer costs no query."""
        asked = len(self.loaded)
        assert self.get(profile_id) is not None
        return len(self.loaded) == asked

    @property
    def hits(self) -> int:
        return self._since_the_start(recorder.CONFIG_CACHE_HITS)

    @property
    def misses(self) -> int:
        return self._since_the_start(recorder.CONFIG_CACHE_MISSES)

    @property
    def invalidations(self) -> int:
        return self._since_the_start(recorder.CONFIG_CACHE_INVALIDATIONS)

    def _since_the_start(self, name: str) -> int:
        return recorder.read().counters[name] - self._counted[name]

    @property
    def redis(self) -> Any:
        return self.cache._redis()

    def has_entry(self, profile_id: UUID) -> bool:
        """Whether there is an entry on the server, asked without using it."""
        value = self.redis.get(self.cache._key(profile_id))
        return value is not None and not value.startswith(config_cache._LEASE)

    def entries(self) -> set[str]:
        """The keys of all entries on the server."""
        keys = [
            key
            for key in self.redis.scan_iter(self.cache._key("*"))
            if key != self.cache._key("recent").encode()
        ]
        values = self.redis.mget(keys) if keys else []
        return {
            key.decode().rsplit(":", 1)[1]
            for key, value in zip(keys, values, strict=True)
            if value is not None and not value.startswith(config_cache._LEASE)
        }

    @property
    def is_back(self) -> bool:
        return not self.cache._is_away


def address(valkey: Valkey, settings: Any) -> None:
    """Lets the configs be cached on that server."""
    configs = {**settings.CACHES["configs"], "LOCATION": valkey.url}
    settings.CACHES = {**settings.CACHES, "configs": configs}
