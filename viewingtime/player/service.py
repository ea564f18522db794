"""The HTTP client of a player: keep-alive, tokens, and the patience of a real player.

A 503 or 429 is asked again after its `Retry-After`, an outlived token is refreshed once, a request
that got no answer is sent again. Everything of this kind is noted as a surprise.
"""

import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import requests
from requests.auth import AuthBase

from viewingtime.player.reckoning import OwnClock

#: Seconds to connect, and from one byte of the answer to the next.
TIMEOUTS = (5.0, 15.0)
#: Seconds for which a request is repeated before the player gives it up.
PATIENCE_SECONDS = 60.0
#: Seconds until a request that got no answer is sent again, and after a refusal without a word.
RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 10.0


class NoServiceError(Exception):
    """Nothing that could be played with answers at the address; the message is a sentence."""


class GivenUpError(Exception):
    """A request was not answered as it should be; it is among the surprises already."""


class Surprises:
    """What went otherwise than it should, counted. Any thread may note one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._noted: Counter[tuple[bool, str]] = Counter()

    def note(self, text: str, *, is_fault: bool) -> None:
        """A fault makes the run fail; the rest a player gets over."""
        with self._lock:
            self._noted[is_fault, text] += 1

    def counted(self, *, faults: bool) -> list[tuple[str, int]]:
        """Each text of this kind and how often it was noted, the most frequent first."""
        with self._lock:
            noted = self._noted.most_common()
        return [(text, count) for (is_fault, text), count in noted if is_fault is faults]


@dataclass(frozen=True, slots=True)
class Reply:
    """A 2xx answer.

    `at` is the middle of the journey by the player's clock: when the service decided, as well as
    the player can tell. `unheard_since` is when the request was first sent, if that was without an
    answer.
    """

    body: dict[str, Any]
    at: datetime
    unheard_since: datetime | None = None


class Tokens(AuthBase):
    """An account's tokens, shared by its devices; one of them refreshes for all."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._lock = threading.Lock()
        self._keep(body)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.access}"
        return request

    def _keep(self, body: dict[str, Any]) -> None:
        self.access = str(body["access_token"])
        self._refresh = str(body["refresh_token"])

    def refresh(self, line: "Line", used: str) -> None:
        """Exchanges the tokens, unless another device did since `used` was current."""
        with self._lock:
            # A refresh token is good once: two devices must not present the same.
            if self.access == used:
                body = {"refresh_token": self._refresh}
                self._keep(line.call("POST", "auth/refresh", body, is_open=True).body)


class Line:
    """A device's connection to the service. Not for use by several threads."""

    def __init__(
        self,
        base_url: str,
        *,
        clock: OwnClock,
        surprises: Surprises,
        tokens: Tokens | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._clock = clock
        self._surprises = surprises
        self._tokens = tokens
        self._http = requests.Session()
        # What is measured is the service, not a proxy; and a .netrc would replace the token.
        self._http.trust_env = False

    def sign_in(self, body: dict[str, Any]) -> None:
        """From now on requests carry these tokens."""
        self._tokens = Tokens(body)

    def sibling(self) -> "Line":
        """Another connection for the same account."""
        return Line(
            self._base_url, clock=self._clock, surprises=self._surprises, tokens=self._tokens
        )

    def close(self) -> None:
        """Closes the connection; the next request opens a new one."""
        self._http.close()

    def check(self) -> None:
        """Raises NoServiceError when no viewing-time service answers at the address."""
        try:
            response = self._http.get(f"{self._base_url}/livez", timeout=TIMEOUTS)
        except requests.RequestException as error:
            raise NoServiceError(
                f"No service answers at {self._base_url} ({type(error).__name__}): start it, or "
                "name its address with --base-url."
            ) from None
        if response.status_code != requests.codes.ok:
            raise NoServiceError(
                f"What answers at {self._base_url} is not this service: GET /livez gave "
                f"{response.status_code}. Name the right address with --base-url."
            )

    def call(
        self,
        method: str,
        route: str,
        body: dict[str, Any] | None = None,
        *,
        of: UUID | None = None,
        is_open: bool = False,
        repeats: bool = True,
    ) -> Reply:
        """One request, repeated until it is answered; `of` is the id in the route's `{id}`.

        `is_open` sends no token; without `repeats` a request that got no answer is not sent
        again. Raises GivenUpError.
        """
        what = f"{method} {route}"
        give_up_at = self._clock.now() + timedelta(seconds=PATIENCE_SECONDS)
        unheard_since: datetime | None = None
        is_refreshed = is_open
        while True:
            used = "" if self._tokens is None else self._tokens.access
            sent_at = self._clock.now()
            pause = RETRY_SECONDS
            try:
                response = self._http.request(
                    method,
                    f"{self._base_url}/api/v1/{route.format(id=of)}",
                    json=body,
                    auth=None if is_open else self._tokens,
                    timeout=TIMEOUTS,
                    allow_redirects=False,
                )
            except requests.RequestException as error:
                unheard_since = unheard_since or sent_at
                complaint = f"{what} got no answer ({type(error).__name__})"
                may_repeat = repeats
            else:
                received_at = self._clock.now()
                status = response.status_code
                if response.ok and status < 300:
                    at = sent_at + (received_at - sent_at) / 2
                    return Reply(self._json(response, what), at, unheard_since)
                complaint = f"{what} answered {_status(response)}"
                may_repeat = status in {429, 503}
                if may_repeat:
                    pause = _retry_after(response)
                elif status == requests.codes.unauthorized and not is_refreshed and self._tokens:
                    is_refreshed = True
                    self._surprises.note(complaint, is_fault=False)
                    self._tokens.refresh(self, used)
                    continue
            if not may_repeat or self._clock.now() + timedelta(seconds=pause) > give_up_at:
                self._surprises.note(f"{complaint}; given up", is_fault=True)
                raise GivenUpError(complaint)
            self._surprises.note(f"{complaint}; asked again", is_fault=False)
            time.sleep(pause)

    def _json(self, response: requests.Response, what: str) -> dict[str, Any]:
        try:
            body = response.json()
        except requests.JSONDecodeError:
            body = None
        if not isinstance(body, dict):
            self._surprises.note(f"{what} answered no JSON object", is_fault=True)
            raise GivenUpError(what)
        return body


def _status(response: requests.Response) -> str:
    """The status and, of a problem, its code."""
    try:
        code = response.json()["code"]
    except (requests.JSONDecodeError, KeyError, TypeError):
        return str(response.status_code)
    return f"{response.status_code} {code}"


def _retry_after(response: requests.Response) -> float:
    """The seconds of `Retry-After`, within reason."""
    text = response.headers.get("Retry-After", "")
    seconds = float(text) if text.isascii() and text.isdigit() else RETRY_SECONDS
    return min(seconds, LONGEST_RETRY_SECONDS)
