"""Heartbeats as fast as they are answered, sent by wrk: a generator in C, of which Debian has one.

Each connection sends its next request as soon as the one before is answered (a closed loop).
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.service import Address, Household
from parentalcontrols.processes import ServerError

_SINGLE, _BATCH = "/api/v1/viewing-time/heartbeat", "/api/v1/viewing-time/heartbeats"

#: Sends the prepared requests in turn; with `apart` each thread those of its own alone, so that no
#: child beats twice at the same time.
_SCRIPT = """
local requests = {}
for line in io.lines(os.getenv('WRK_REQUESTS')) do
    requests[#requests + 1] = line:gsub('\\\\r', '\\r'):gsub('\\\\n', '\\n')
end
local apart = os.getenv('WRK_APART') == '1'
local threads = {}
function setup(thread)
    thread:set('number', #threads)
    threads[#threads + 1] = thread
end
function init()
    math.randomseed(os.time())
    at = apart and number or math.random(#requests)
    refused = 0
end
function request()
    if not apart then at = at + 1 end
    return requests[at % #requests + 1]
end
function response(status, headers, body)
    if status ~= 200 or body:find('"error"', 1, true) then refused = refused + 1 end
end
function done(summary, latency)
    local all = 0
    for _, thread in ipairs(threads) do all = all + thread:get('refused') end
    local e = summary.errors
    io.write(string.format(
        '{"requests": %d, "microseconds": %d, "p50": %d, "p95": %d, "p99": %d, '
            .. '"refused": %d, "lost": %d}\\n',
        summary.requests, summary.duration,
        latency:percentile(50), latency:percentile(95), latency:percentile(99),
        all, e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of a run. Latencies in milliseconds; `refused` are answers other than 200."""

    requests: int
    rate: float
    p50: float
    p95: float
    p99: float
    refused: int
    lost: int

    @property
    def served(self) -> float:
        """Requests a second that were answered with success."""
        return self.rate * (1 - self.refused / self.requests) if self.requests else 0.0


class Players:
    """Children who beat over HTTP, their sessions open."""

    def __init__(self, address: Address, folder: Path) -> None:
        self._address = address
        self._folder = folder
        self._program = shutil.which("wrk")
        if self._program is None:
            raise ServerError("There is no wrk here: install it (Debian: apt-get install wrk).")
        (folder / "wrk.lua").write_text(_SCRIPT, encoding="utf-8")

    def write_single(
        self, beats: Sequence[dict[str, Any]], households: Sequence[Household]
    ) -> Path:
        """The requests of single beats, one of each household."""
        requests = [
            self._request(_SINGLE, beat, household.token)
            for beat, household in zip(beats, households, strict=True)
        ]
        return self._write("single", requests)

    def write_batches(self, beats: Sequence[dict[str, Any]], token: str, size: int) -> Path:
        """The requests of batches of so many beats."""
        batches = [beats[at : at + size] for at in range(0, len(beats), size)]
        return self._write(
            "batches", [self._request(_BATCH, {"heartbeats": list(b)}, token) for b in batches]
        )

    def _request(self, path: str, body: Any, token: str) -> str:
        text = json.dumps(body)
        return (
            f"POST {path} HTTP/1.1\\r\\n"
            f"Host: {self._address.host}:{self._address.port}\\r\\n"
            f"Authorization: Bearer {token}\\r\\n"
            "Content-Type: application/json\\r\\n"
            f"Content-Length: {len(text)}\\r\\n\\r\\n{text}"
        )

    def _write(self, name: str, requests: Sequence[str]) -> Path:
        path = self._folder / f"{name}.requests"
        path.write_text("\n".join(requests) + "\n", encoding="ascii")
        return path

    def play(
        self, requests: Path, *, connections: int, seconds: float, apart: bool = False
    ) -> Answered:
        """Sends over so many connections for so long; with `apart` a thread a connection."""
        done = subprocess.run(
            [
                *(str(self._program), f"-c{connections}", f"-t{connections if apart else 1}"),
                *(f"-d{max(1, round(seconds))}s", "--timeout=10s"),
                *("-s", str(self._folder / "wrk.lua")),
                f"http://{self._address.host}:{self._address.port}",
            ],
            env={"WRK_REQUESTS": str(requests), "WRK_APART": "1" if apart else "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            found = json.loads(done.stdout.strip().splitlines()[-1])
        except (ValueError, IndexError):
            raise ServerError(f"wrk failed:\n{done.stderr or done.stdout}") from None
        return Answered(
            requests=found["requests"],
            rate=found["requests"] / (found["microseconds"] / 1e6),
            p50=found["p50"] / 1000,
            p95=found["p95"] / 1000,
            p99=found["p99"] / 1000,
            refused=found["refused"],
            lost=found["lost"],
        )
