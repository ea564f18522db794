"""Processes of the service are killed while beats are under way in them."""

import psutil

from parentalcontrols.processes import wait_until
from pins.tests.service import LONG, Service, gunicorn
from tests.faults.evening import FAULT_SECONDS, evening
from tests.faults.stage import Stage

WORKERS = 2
KILLS = max(2, round(FAULT_SECONDS))
#: Seconds for which beats gather behind a lock before their worker is killed.
_HELD_SECONDS = 0.3


def connections_of(worker: psutil.Process) -> int:
    """Players that a worker answers; none where it is dead."""
    try:
        found = worker.net_connections("tcp")
    except psutil.Error:
        return 0
    return sum(connection.status == psutil.CONN_ESTABLISHED for connection in found)


def all_answer(service: Service) -> bool:
    """Whether every worker has players: none is starting."""
    workers = service.workers()
    return len(workers) == WORKERS and all(connections_of(worker) for worker in workers)


def test_kills_of_workers_lose_nothing_and_count_nothing_twice(stage: Stage) -> None:
    with (
        gunicorn(stage.postgres.url, WORKERS=str(WORKERS), REDIS_URL=stage.valkey.url) as service,
        evening("workers-killed", stage, service) as playing,
        stage.connect() as holder,
    ):
        for round_ in range(KILLS):
            # Nobody but the service does anything about the one that was killed before.
            assert wait_until(lambda: all_answer(service), LONG)
            victim = max(service.workers(), key=connections_of)
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

        assert wait_until(lambda: all_answer(service), LONG)
        playing.figures["kills"] = KILLS


def test_when_an_instance_dies_players_go_on_at_the_other(stage: Stage) -> None:
    with (
        gunicorn(stage.postgres.url, WORKERS="2", REDIS_URL=stage.valkey.url) as dying,
        gunicorn(stage.postgres.url, WORKERS="2", REDIS_URL=stage.valkey.url) as other,
        evening("instance-killed", stage, dying, other) as playing,
    ):
        playing.play_on()
        with playing.fault():
            playing.note_kill()
            master = psutil.Process(dying.process.pid)
            for process in [master, *dying.workers()]:
                process.kill()
        playing.play_on()
