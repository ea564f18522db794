"""gunicorn's own log, in the forms of ours; it imports nothing that a worker has to patch."""

from typing import Any

from gunicorn.glogging import Logger as GunicornLogger

from parentalcontrols.logs import formatter


class Logger(GunicornLogger):  # type: ignore[misc]
    """JSON lines, or plain text in a terminal; the access log, too."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            stream = getattr(handler, "stream", None)
            handler.setFormatter(formatter(is_plain=stream is not None and stream.isatty()))

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Of an exception its kind: the text of one may be what a client sent."""
        told = (type(arg).__name__ if isinstance(arg, Exception) else arg for arg in args)
        super().debug(msg, *told, **kwargs)

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:
        """A request, without what follows its path: the admin's searches have e-mails there."""
        if not self.cfg.accesslog:
            return
        headers = {name.lower(): value for name, value in resp.headers}
        self.access_log.info(
            "%s %s",
            environ["REQUEST_METHOD"],
            environ["RAW_URI"].partition("?")[0],
            extra={
                "request_id": headers.get("x-request-id"),
                "status": resp.status_code,
                "bytes": resp.sent,
                "seconds": round(request_time.total_seconds(), 6),
                "address": environ.get("REMOTE_ADDR"),
                "user_agent": environ.get("HTTP_USER_AGENT"),
            },
        )
