"""The health check of the image, against the running service and against what is none."""

import socket
import subprocess
import sys
from pathlib import Path

from parentalcontrols import liveness
from pins.tests.service import Service

ROOT = Path(__file__).resolve().parents[2]


def port_of(service: Service) -> str:
    return service.url.rpartition(":")[2]


def test_a_service_that_answers_is_alive_wherever_it_listens(served: Service) -> None:
    port = port_of(served)
    assert liveness.problem({"PORT": port}) is None
    for host in ("0.0.0.0", "127.0.0.1", ""):
        assert liveness.problem({"PORT": port, "BIND_HOST": host}) is None


def test_nobody_who_listens_is_a_problem() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        told = liveness.problem({"PORT": str(taken.getsockname()[1])})
    assert told is not None
    assert told.startswith("/livez does not answer")


def test_a_process_that_hangs_is_a_problem_within_three_seconds() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        told = liveness.problem({"PORT": str(silent.getsockname()[1])})
    assert told == "/livez does not answer: timed out"
    assert liveness.TIMEOUT < 3


def test_it_is_a_program_that_needs_no_setting_but_the_port(served: Service) -> None:
    command = [sys.executable, "-m", "parentalcontrols.liveness"]
    alive = subprocess.run(command, cwd=ROOT, env={"PORT": port_of(served)}, check=False)
    assert alive.returncode == 0
    dead = subprocess.run(
        command, cwd=ROOT, env={"PORT": "1"}, check=False, capture_output=True, text=True
    )
    assert dead.returncode == 1
    assert dead.stderr.startswith("/livez does not answer")
