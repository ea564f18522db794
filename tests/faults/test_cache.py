"""Valkey is killed, hung, slow or unreachable while everybody plays: an outage to nobody."""

from typing import Any
from uuid import UUID

import psutil
from redis import Redis

from parentalcontrols.processes import wait_until
from pins.tests.service import LONG, Line, Service, gunicorn
from tests.faults.books import DEADLINES, SECOND
from tests.faults.evening import FAULT_SECONDS, evening
from tests.faults.proxy import Proxy
from tests.faults.stage import Stage, hung
from viewingtime.tests.village import BEAT

#: Changes while Valkey hangs, each after another number of others.
ROUNDS = max(4, round(FAULT_SECONDS))


def test_a_kill_of_valkey_refuses_no_beat(stage: Stage, undying: Service) -> None:
    with evening("valkey-killed", stage, undying) as playing:
        playing.play_on()
        with playing.fault():
            psutil.Process(stage.valkey.pid).kill()
            stage.valkey.stop()
            playing.endure()
            stage.valkey.start()
    assert playing.refused == 0


def test_a_valkey_that_hangs_refuses_no_beat(stage: Stage, undying: Service) -> None:
    with evening("valkey-hung", stage, undying) as playing:
        playing.play_on()
        with playing.fault(), hung([psutil.Process(stage.valkey.pid)]):
            playing.endure()
    assert playing.refused == 0


def test_a_change_made_while_valkey_hung_is_known_to_who_noticed_nothing(stage: Stage) -> None:
    """Limits are changed at one instance; nobody beats at the other until Valkey goes on."""
    home = stage.household(2, minutes=15, watched=900, learns=True)
    child, sibling = home.children
    beat: dict[str, Any] = {
        "profile_id": str(child),
        "title_id": str(home.title),
        "device_id": "tv",
        "session_id": None,
    }
    cache = Redis(unix_socket_path=str(stage.valkey.socket_path), password=stage.valkey.password)

    def is_cached() -> bool:
        """Whether there is an entry of the child, not just the place of one."""
        values = [cache.get(key) for key in cache.scan_iter(f"*configs*{child}")]
        return any(isinstance(v, bytes) and not v.startswith(b"lease ") for v in values)

    def is_playing() -> bool:
        """Beats for the session that is open; only such a beat is judged by what the cache has."""
        told = player.post(BEAT, beat)
        assert told.status == 200
        beat["session_id"] = told.body["session_id"]
        return bool(told.body["enforcement"] != "blocked")

    with (
        gunicorn(stage.postgres.url, WORKERS="1", REDIS_URL=stage.valkey.url) as changing,
        gunicorn(stage.postgres.url, WORKERS="1", REDIS_URL=stage.valkey.url) as quiet,
    ):
        parent, player = Line(changing, home.token), Line(quiet, home.token)
        for round_ in range(ROUNDS):
            parent.send("PUT", config_path(child), {"educational_exempt": True})
            # The quiet one is back from the round before, and what was set there is in the cache.
            assert wait_until(lambda: is_playing() and is_cached(), LONG)
            with hung([psutil.Process(stage.valkey.pid)]):
                # On a connection that is there an invalidation is heard when Valkey goes on. That
                # of the second change needs another one, and is lost.
                for changed in (*[sibling] * (1 + round_ % 2), child):
                    change = {"educational_exempt": changed is sibling}
                    told = parent.send("PUT", config_path(changed), change)
                    assert told.status == 200
                    assert told.heard_at - told.sent_at < DEADLINES["beat"] * SECOND
            assert not is_playing(), round_
        parent.close()
        player.close()
    cache.close()


def config_path(child: UUID) -> str:
    return f"/parental-controls/profiles/{child}/viewing-time"


def test_a_valkey_that_is_slow_or_unreachable_refuses_no_beat(stage: Stage) -> None:
    with (
        Proxy(stage.valkey.socket_path) as proxy,
        gunicorn(
            stage.postgres.url,
            WORKERS="2",
            REDIS_URL=f"redis://:{stage.valkey.password}@127.0.0.1:{proxy.port}/0",
        ) as service,
        evening("valkey-slow", stage, service) as playing,
    ):
        playing.play_on()
        # Slow, but answering within the time that is waited for it; then slower than that.
        for delay in (0.05, 0.2):
            with playing.fault():
                proxy.delay = delay
                playing.endure()
                proxy.delay = 0.0
            playing.play_on()
        with playing.fault():
            proxy.swallows = True
            playing.endure()
            proxy.swallows = False
    assert playing.refused == 0
