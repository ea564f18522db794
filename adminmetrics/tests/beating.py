"""The service, with a path that counts heartbeats: `/count?n=3` counts three.

Stands in for the real ones where a test wants ten thousand of them, at once and exactly.
"""

import os
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

from parentalcontrols.wsgi import application as service


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    if environ["PATH_INFO"] != "/count":
        return service(environ, start_response)
    from adminmetrics import recorder

    for _ in range(int(parse_qs(environ["QUERY_STRING"])["n"][0])):
        recorder.heartbeats(1, 1, 0.004)
        recorder.verdict("allowed")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
