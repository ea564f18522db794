"""PostgreSQL is restarted, killed, or full of others, while everybody plays."""

from pins.tests.service import Service
from tests.faults.evening import evening
from tests.faults.stage import Stage


def test_postgresql_restarted_fast(stage: Stage, undying: Service) -> None:
    with evening("postgresql-restarted", stage, undying) as playing:
        playing.play_on()
        with playing.fault():
            # A fast shutdown, what `pg_ctl restart -m fast` does.
            stage.postgres.stop()
            stage.postgres.start()


def test_postgresql_killed(stage: Stage, undying: Service) -> None:
    with evening("postgresql-killed", stage, undying) as playing:
        playing.play_on()
        with playing.fault():
            stage.postgres.kill()
            playing.play_on()
            stage.postgres.start()
