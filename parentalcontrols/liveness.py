"""`python -m parentalcontrols.liveness`: whether the web process of this container answers.

The exit code is 0 or 1, and a sentence tells why. It asks `/livez`, which asks no other server: a
database that is away is no reason to restart this one. Nothing of Django is loaded.
"""

import http.client
import os
import sys
from collections.abc import Mapping

#: Seconds; Docker ends the check after three.
TIMEOUT = 2.0


def problem(environment: Mapping[str, str]) -> str | None:
    """What is wrong with the service that listens at PORT of this host; None where nothing is."""
    host = environment.get("BIND_HOST") or "127.0.0.1"
    # What listens everywhere listens here, too.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # nosec B104
    connection = http.client.HTTPConnection(
        host, int(environment.get("PORT") or 8000), timeout=TIMEOUT
    )
    try:
        connection.request("GET", "/livez", headers={"Host": "localhost"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"/livez does not answer: {error or type(error).__name__}"
    finally:
        connection.close()
    return None if status == 200 else f"/livez answers {status}"


if __name__ == "__main__":
    sys.exit(problem(os.environ))
