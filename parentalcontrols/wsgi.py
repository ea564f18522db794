"""The WSGI application that gunicorn serves."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.utils.module_loading import import_string

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "parentalcontrols.settings")

_django = get_wsgi_application()
#: Asked before Django; answers None for what it leaves to Django.
_plain: Callable[..., Iterable[bytes] | None] = import_string(settings.PLAIN_REQUESTS)
_read_ahead: Callable[[dict[str, Any]], None] = import_string("parentalcontrols.parsers.read_ahead")


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The answer to a request; heartbeats, which are most of all, take a shorter way."""
    answer = _plain(environ, start_response)
    if answer is not None:
        return answer
    _read_ahead(environ)
    return _django(environ, start_response)
