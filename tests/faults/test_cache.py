"""Valkey is killed, hung, slow or unreachable while everybody plays: an outage to nobody."""

import psutil
from redis import Redis

from parentalcontrols.processes import wait_until
from pins.tests.service import LONG, Line, Service, gunicorn
from tests.faults.books import DEADLINES, SECOND
from tests.faults.evening import evening
from tests.faults.proxy import Proxy
from tests.faults.stage import Stage, hung
from viewingtime.tests.village import BEAT


def test_valkey_killed(stage: Stage, undying: Service) -> None:
    with evening("valkey-killed", stage, undying) as playing:
        playing.play_on()
        with playing.fault():
            psutil.Process(stage.valkey.pid).kill()
            stage.valkey.stop()
            playing.play_on()
            stage.valkey.start()


def test_valkey_hung(stage: Stage, undying: Service) -> None:
    with evening("valkey-hung", stage, undying) as playing:
        playing.play_on()
        with playing.fault(), hung([psutil.Process(stage.valkey.pid)]):
            playing.play_on()


def test_a_change_made_while_valkey_hung_is_known_to_who_noticed_nothing(stage: Stage) -> None:
    """Valkey hangs while a limit is changed at one instance; nobody beats at the other."""
    home = stage.household(minutes=15, watched=900, learns=True)
    beat = {"profile_id": str(home.child), "title_id": str(home.title), "device_id": "tv"}
    config = f"/parental-controls/profiles/{home.child}/viewing-time"
    settings = {"WORKERS": "1", "REDIS_URL": stage.valkey.url}
    cache = Redis(unix_socket_path=str(stage.valkey.socket_path), password=stage.valkey.password)

    def is_cached() -> bool:
        """Whether there is an entry of the child, not just the place of one."""
        values = [cache.get(key) for key in cache.scan_iter(f"*configs*{home.child}")]
        return any(isinstance(v, bytes) and not v.startswith(b"lease ") for v in values)

    with (
        gunicorn(stage.postgres.url, stderr=None, **settings) as changing,
        gunicorn(stage.postgres.url, stderr=None, **settings) as quiet,
    ):
        parent, player = Line(changing, home.token), Line(quiet, home.token)
        for round_ in range(10):
            is_exempt = round_ % 2 == 0
            # The quiet one is back from the round before, and what was set there is in the cache.
            assert wait_until(lambda: player.post(BEAT, beat).status == 200 and is_cached(), LONG)
            with hung([psutil.Process(stage.valkey.pid)]):
                changed = parent.send("PUT", config, {"educational_exempt": is_exempt})
                assert changed.status == 200
                assert changed.heard_at - changed.sent_at < DEADLINES["beat"] * SECOND
            after = player.post(BEAT, beat)
            assert (after.body["enforcement"] != "blocked") == is_exempt, round_
        parent.close()
        player.close()
    cache.close()


def test_valkey_slow_and_unreachable(stage: Stage) -> None:
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
                playing.play_on()
                proxy.delay = 0.0
            playing.play_on()
        with playing.fault():
            proxy.swallows = True
            playing.play_on()
            proxy.swallows = False
