"""gunicorn's worker of threads, for `WORKER_CLASS=gthread`."""

from gunicorn.workers.gthread import ThreadWorker

from parentalcontrols.unreadable import Refusing


class Worker(Refusing, ThreadWorker):  # type: ignore[misc]
    """The same, with our answers to what cannot be read."""
