"""Processes of the service are killed while beats are under way in them."""

import psutil

from pins.tests.service import Service, await_warm, gunicorn
from tests.faults.evening import FAULT_SECONDS, evening
from tests.faults.stage import Stage

WORKERS = 2
KILLS = max(2, round(FAULT_SECONDS))
#: Seconds for which beats gather behind a lock before their worker is killed.
_HELD_SECONDS = 0.3


def busiest(service: Service) -> psutil.Process:
    """The worker with most connections: one that answers, not one that is still starting."""
    return max(
        service.workers(),
        key=lambda worker: sum(
            c.status == psutil.CONN_ESTABLISHED for c in worker.net_connections("tcp")
        ),
    )


def test_workers_killed(stage: Stage) -> None:
    with (
        gunicorn(stage.postgres.url, WORKERS=str(WORKERS), REDIS_URL=stage.valkey.url) as service,
        evening("workers-killed", stage, service) as playing,
        stage.connect() as holder,
    ):
        for round_ in range(KILLS):
            victim = busiest(service)
            with playing.fault():
                if round_ % 2 == 0:
                    # Statements wait in PostgreSQL for whole batches whose worker dies meanwhile:
                    # they go on when it is dead, or do not.
                    with holder.transaction():
                        holder.execute("LOCK TABLE viewing_sessions IN EXCLUSIVE MODE")
                        playing.play_on(_HELD_SECONDS)
                        playing.note_kill()
                        victim.kill()
                else:
                    playing.note_kill()
                    victim.kill()

            # Nobody but the service does anything about it.
            await_warm(stage.postgres.url, WORKERS, busy=True)
            assert playing.await_everybody()
        playing.figures["kills"] = KILLS


def test_one_of_two_instances_killed(stage: Stage) -> None:
    settings = {"WORKERS": str(WORKERS), "REDIS_URL": stage.valkey.url}
    with (
        gunicorn(stage.postgres.url, stderr=None, **settings) as dying,
        gunicorn(stage.postgres.url, stderr=None, **settings) as other,
        evening("instance-killed", stage, dying, other) as playing,
    ):
        playing.play_on()
        with playing.fault():
            playing.note_kill()
            workers = dying.workers()
            dying.process.kill()
            for worker in workers:
                worker.kill()
        playing.play_on()
