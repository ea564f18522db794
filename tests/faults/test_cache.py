"""Valkey is killed, hung, slow or unreachable while everybody plays: an outage to nobody."""

import psutil

from pins.tests.service import Service, gunicorn
from tests.faults.evening import evening
from tests.faults.proxy import Proxy
from tests.faults.stage import Stage, hung


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
