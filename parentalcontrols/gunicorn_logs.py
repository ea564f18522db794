"""gunicorn's own log, in the forms of ours; it imports nothing that a worker has to patch."""

from typing import Any

from gunicorn.glogging import Logger as GunicornLogger

from parentalcontrols.logs import formatter


class Logger(GunicornLogger):  # type: ignore[misc]
    """JSON lines, or plain text in a terminal. The access log stays as gunicorn writes it."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            stream = getattr(handler, "stream", None)
            handler.setFormatter(formatter(is_plain=stream is not None and stream.isatty()))

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Of an exception its kind: the text of one may be what a client sent."""
        told = (type(arg).__name__ if isinstance(arg, Exception) else arg for arg in args)
        super().debug(msg, *told, **kwargs)
