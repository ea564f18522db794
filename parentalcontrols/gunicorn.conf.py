# ruff: noqa: N999 - gunicorn's own name for this file
"""How gunicorn serves the application; every value comes from the environment.

Threads, because a request waits for the database most of its time. The application is loaded in
each worker and not before the fork: a connection opened in the master would be shared by all.
"""

import importlib
import os
import sys
from pathlib import Path
from time import monotonic
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

# Since then the service runs, whichever of its workers are replaced.
_started = monotonic()

# The settings put their limits for requests on a web process alone, not on a migration.
os.environ["SERVING"] = "1"

# A wrong setting stops the start with its sentence, once, and not each worker with a traceback.
try:
    importlib.import_module("parentalcontrols.settings")
except ImproperlyConfigured as error:
    print(f"Configuration: {error}", file=sys.stderr)
    sys.exit(78)

_host = os.environ.get("BIND_HOST", "127.0.0.1")
_port = os.environ.get("PORT", "8000")
bind = f"[{_host}]:{_port}" if ":" in _host else f"{_host}:{_port}"

worker_class = "gthread"
workers = int(os.environ.get("WORKERS", "2"))
threads = int(os.environ.get("THREADS", "16"))
preload_app = False

# Seconds. A player's connection outlives the pause between two heartbeats.
keepalive = 75
timeout = 30
graceful_timeout = 30

# 0 is off. The jitter keeps the workers from restarting together.
max_requests = int(os.environ.get("MAX_REQUESTS", "0"))
max_requests_jitter = max_requests // 10

limit_request_line = 8190
limit_request_fields = 64
limit_request_field_size = 8190
forwarded_allow_ips = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")

# gunicorn would otherwise open a socket for remote control in the home folder.
control_socket_disable = True
# The workers' sign of life is a file; on a disk that is busy it can come too late.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # nosec B108

errorlog = "-"
accesslog = os.environ.get("ACCESS_LOG") or None
loglevel = os.environ.get("LOG_LEVEL", "warning").lower()


def post_worker_init(worker: Any) -> None:
    """Pay for the first connection before the first request does.

    A database that is away is no reason not to start: the service answers 503 until it is back.
    """
    from django.db import DatabaseError, connections

    connection = connections["default"]
    try:
        connection.ensure_connection()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        worker.log.warning("The database does not answer yet: %s", error)
    finally:
        # Requests run in other threads, each with a connection of its own.
        connection.close()
    if apps.ready and apps.is_installed("adminmetrics"):
        from adminmetrics import rollup

        rollup.start(service_started=_started)


def worker_exit(server: Any, worker: Any) -> None:
    """Hand over what was counted since the last time."""
    rollup = sys.modules.get("adminmetrics.rollup")
    if rollup is not None:
        rollup.stop()
