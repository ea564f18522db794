# ruff: noqa: N999 - gunicorn's own name for this file
"""How gunicorn serves the application; every value comes from the environment.

Greenlets, because they let heartbeats gather (docs/performance.md). The application is loaded in
each worker and not before the fork: a connection opened in the master would be shared by all.
"""

import os
import resource
import signal
import subprocess  # nosec B404
import sys
from pathlib import Path
from time import monotonic
from typing import Any

# The settings put their limits for requests on a web process alone, not on a migration.
os.environ["SERVING"] = "1"
# Since then the service runs (the monotonic clock), whichever of its workers are replaced.
os.environ.setdefault("SERVICE_STARTED", str(monotonic()))

_CHECK = """
import sys
from django.core.exceptions import ImproperlyConfigured
try:
    import parentalcontrols.settings
except ImproperlyConfigured as error:
    sys.exit(f"Configuration: {error}")
"""
# A wrong setting stops the start with its sentence, once, and not each worker with a traceback.
# In a process of its own: what the master imported, workers of greenlets could not patch.
_checked = subprocess.run(
    [sys.executable, "-c", _CHECK], cwd=Path(__file__).parent.parent, check=False
)
if _checked.returncode:
    sys.exit(78)

_host = os.environ.get("BIND_HOST", "127.0.0.1")
_port = os.environ.get("PORT", "8000")
bind = f"[{_host}]:{_port}" if ":" in _host else f"{_host}:{_port}"

if os.environ.get("WORKER_CLASS", "gevent") == "gevent":
    worker_class = "parentalcontrols.worker.Worker"
else:
    worker_class = "parentalcontrols.thread_worker.Worker"
worker_connections = int(os.environ.get("WORKER_CONNECTIONS", "4096"))
# Each is a file; the usual limit of a shell is 1024. The rest is for the servers and modules.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
_files = worker_connections + 512
_files = _files if _hard == resource.RLIM_INFINITY else min(_files, _hard)
if _soft != resource.RLIM_INFINITY and _soft < _files:
    resource.setrlimit(resource.RLIMIT_NOFILE, (_files, _hard))
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
logger_class = "parentalcontrols.gunicorn_logs.Logger"
accesslog = os.environ.get("ACCESS_LOG") or None
loglevel = os.environ.get("LOG_LEVEL", "warning").lower()


def post_fork(server: Any, worker: Any) -> None:
    """Hear a stop that comes before the worker listens to signals by itself; it comes but once."""

    def stop(*_: Any) -> None:
        worker.alive = False

    signal.signal(signal.SIGTERM, stop)


def post_worker_init(worker: Any) -> None:
    """Pay for connections, prepared statements and imports before the first request does."""
    from django.apps import apps
    from django.conf import settings
    from django.utils.module_loading import import_string

    for name in settings.WEB_PROCESS_STARTS:
        import_string(name)()
    if hasattr(worker, "rehearse"):
        worker.rehearse()
    if apps.ready and apps.is_installed("adminmetrics"):
        from adminmetrics import recorder, rollup

        # What was rehearsed is nobody's beat.
        recorder.reset()

        rollup.start(service_started=float(os.environ["SERVICE_STARTED"]))


def worker_exit(server: Any, worker: Any) -> None:
    """Hand over what was counted since the last time."""
    rollup = sys.modules.get("adminmetrics.rollup")
    if rollup is not None:
        rollup.stop()
