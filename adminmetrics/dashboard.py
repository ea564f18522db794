"""What the pages of metrics show: figures now, and their course over a range of time."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from adminmetrics import histograms, queries, recorder, rollup
from adminmetrics.queries import Figures, Service, Source

#: Rows of the heat map: quarters of decades from 100 microseconds to 10 seconds, and beyond.
_ROW = histograms.PER_DECADE // 4
_FIRST_ROW, _LAST_ROW = histograms.PER_DECADE // _ROW, 6 * histograms.PER_DECADE // _ROW
#: The longest duration of each row but the last, in milliseconds.
HEAT_EDGES = [
    round(histograms.edge(row * _ROW) * 1000, 4) for row in range(_FIRST_ROW, _LAST_ROW + 1)
]


@dataclass(frozen=True, slots=True)
class Range:
    """How far a page looks back, how wide its steps are and how often it asks anew, in seconds."""

    key: str
    label: str
    seconds: int
    step: int
    poll: int


RANGES = {
    found.key: found
    for found in (
        Range("15m", "15 minutes", 900, 60, 2),
        Range("1h", "1 hour", 3600, 60, 2),
        Range("6h", "6 hours", 6 * 3600, 300, 5),
        Range("24h", "24 hours", 86400, 600, 10),
        Range("7d", "7 days", 7 * 86400, 3600, 60),
        Range("30d", "30 days", 30 * 86400, 4 * 3600, 60),
    )
}
DEFAULT_RANGE = RANGES["1h"]


def ranges(source: Source) -> list[Range]:
    """What can be told of a source: minutes alone know the worker, and are folded as they age."""
    kept = settings.METRICS_MINUTE_DAYS * 86400
    return [found for found in RANGES.values() if source.worker is None or found.seconds <= kept]


def source_name(source: Source) -> str:
    """A source for people; nothing for everybody."""
    if source.instance is None:
        return ""
    return f"{source.instance}, " + (f"worker {source.worker}" if source.worker else "all workers")


#: What a tile says where there is nothing that a figure could be of: 0 would be one.
NONE = "none"


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure for people."""

    key: str
    label: str
    text: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart of the page, and the lines in it."""

    key: str
    title: str
    unit: str
    lines: tuple[tuple[str, str], ...] = ()
    is_log: bool = False
    is_heat: bool = False
    empty: str = "No heartbeat arrived in this range."


CHARTS = (
    Chart("beats", "Heartbeats a second", "/s", (("beats", "heartbeats"),)),
    Chart(
        "latency",
        "Heartbeat latency",
        "ms",
        (("p50", "p50"), ("p95", "p95"), ("p99", "p99")),
        is_log=True,
    ),
    Chart("heat", "Heartbeats by latency", "ms", is_heat=True),
    Chart(
        "trips",
        "Database round trips per heartbeat",
        "",
        (("trips", "round trips"),),
    ),
    Chart(
        "verdicts",
        "Verdicts a second",
        "/s",
        tuple((f"verdict_{kind}", kind.replace("_", " ")) for kind in recorder.VERDICTS),
    ),
    Chart(
        "cache",
        "Config cache",
        "%",
        (("hit_rate", "hit rate"),),
        empty="Nobody asked the cache in this range.",
    ),
    Chart(
        "pins",
        "PINs a minute",
        "/min",
        (("pin_right", "right"), ("pin_wrong", "wrong"), ("pin_locked", "refused by a lock")),
        empty="No PIN was sent in this range.",
    ),
    Chart(
        "errors",
        "Refusals and errors a minute",
        "/min",
        (
            ("errors", "errors (500)"),
            ("unavailable", "unavailable (503)"),
            ("refused", "refused (4xx)"),
        ),
        empty="Nothing was refused in this range.",
    ),
)


def page(wanted: Range, source: Source | None = None) -> dict[str, Any]:
    """Everything that the page of metrics shows, fit for JSON.

    Hands over what this process counted first, if it can; raises database errors.
    """
    rollup.hand_over_now()
    service = queries.service(instance=source.instance if source else None)
    since = _start(wanted, service.now)
    steps = queries.series(since=since, step=wanted.step, source=source, names=recorder.DURATIONS)
    return {
        "range": wanted.key,
        "poll": wanted.poll,
        "as_of": _clock(service.as_of),
        "tiles": [asdict(tile) for tile in _tiles(wanted, source, service, steps)],
        **_course(wanted, since, service.now, steps),
    }


def tiles(wanted: Range, source: Source | None = None) -> list[Tile]:
    """The figures alone, in their order."""
    rollup.hand_over_now()
    service = queries.service(instance=source.instance if source else None)
    since = _start(wanted, service.now)
    steps = queries.series(
        since=since, step=wanted.step, source=source, names=[recorder.HEARTBEAT_SECONDS]
    )
    return _tiles(wanted, source, service, steps)


def _start(wanted: Range, now: datetime) -> datetime:
    """The start of the first step of a range."""
    seconds = int(now.timestamp()) - wanted.seconds
    return datetime.fromtimestamp(seconds - seconds % wanted.step + wanted.step, tz=now.tzinfo)


def _clock(instant: datetime | None) -> str | None:
    return None if instant is None else f"{instant:%Y-%m-%d %H:%M:%S} UTC"


# --- Tiles ----------------------------------------------------------------------------------


def _tiles(
    wanted: Range, source: Source | None, service: Service, steps: Mapping[int, Figures]
) -> list[Tile]:
    whole = queries.merged(steps.values())
    beats = whole.count(recorder.HEARTBEATS)
    latency = recorder.HEARTBEAT_SECONDS
    in_range = f"in {wanted.label}"
    p95 = _milliseconds(whole.quantile_ms(latency, 0.95))
    trips = _number(whole.ratio(recorder.HEARTBEAT_ROUND_TRIPS, recorder.HEARTBEATS))
    asked = whole.count(recorder.CONFIG_CACHE_HITS) + whole.count(recorder.CONFIG_CACHE_MISSES)
    hit_rate = f"{whole.hit_rate:.0%}"
    return [
        *_total_tile(source or Source(), service.now),
        Tile("in_range", "Heartbeats", f"{beats:,}", in_range),
        Tile("rate", "Heartbeats a second", _number(_rate(source, service.now)), "now"),
        Tile("p95", "Latency p95", p95 if beats else NONE, in_range),
        Tile("trips", "Round trips per beat", trips if beats else NONE, in_range),
        Tile("hit_rate", "Config cache hit rate", hit_rate if asked else NONE, in_range),
        *_live_tiles(),
        Tile("errors", "Errors", f"{whole.count(recorder.ERRORS):,}", in_range),
        Tile("uptime", "Up for", _span(service.uptime_seconds), _workers(service.workers)),
    ]


def _total_tile(source: Source, now: datetime) -> list[Tile]:
    """Of a worker there is none: what it counted ever is not known once its minutes are folded."""
    if source.worker is not None:
        return []
    total = queries.total(recorder.HEARTBEATS, instance=source.instance, now=now)
    return [Tile("total", "Heartbeats", f"{total:,}", "ever")]


def _rate(source: Source | None, now: datetime) -> float:
    """Heartbeats a second, of the running minute and the one before."""
    since = now.replace(second=0, microsecond=0) - timedelta(minutes=1)
    steps = queries.series(since=since, step=60, source=source, names=())
    beats = queries.merged(steps.values()).count(recorder.HEARTBEATS)
    return beats / (now - since).total_seconds()


def _live_tiles() -> list[Tile]:
    """Figures that other packages tell."""
    found = []
    for key, (label, note, dotted) in settings.METRICS_LIVE_FIGURES.items():
        figure: Callable[[], int] = import_string(dotted)
        found.append(Tile(key, label, f"{figure():,}", note))
    return found


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _milliseconds(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms"


def _workers(count: int) -> str:
    return "no worker" if not count else "1 worker" if count == 1 else f"{count} workers"


def _span(seconds: float) -> str:
    """A duration in its two largest units."""
    rest = timedelta(seconds=int(seconds))
    hours, minutes = divmod(rest.seconds // 60, 60)
    if rest.days:
        return f"{rest.days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest.seconds % 60} s"


# --- Charts ---------------------------------------------------------------------------------


def _course(
    wanted: Range, since: datetime, now: datetime, steps: Mapping[int, Figures]
) -> dict[str, Any]:
    """The lines and the heat map, a value for each step; null where there is nothing to tell."""
    first, last = int(since.timestamp()), int(now.timestamp())
    times = list(range(first, last + 1, wanted.step))
    lines: dict[str, list[float | None]] = {}
    heat = []
    for index, at in enumerate(times):
        seconds = max(1.0, min(wanted.step, now.timestamp() - at))
        found = steps.get(at, Figures({}, {}))
        for key, value in _values(found, seconds).items():
            lines.setdefault(key, []).append(None if value is None else round(value, 4))
        rows: dict[int, int] = {}
        for bucket, count in found.histograms.get(recorder.HEARTBEAT_SECONDS, {}).items():
            row = min(max(-(-bucket // _ROW), _FIRST_ROW), _LAST_ROW + 1) - _FIRST_ROW
            rows[row] = rows.get(row, 0) + count
        heat += [[index, row, count] for row, count in sorted(rows.items())]
    return {"step": wanted.step, "times": times, "lines": lines, "heat": heat}


def _values(found: Figures, seconds: float) -> dict[str, float | None]:
    """Each line's value of one step that has lasted so long."""
    latency, beats = recorder.HEARTBEAT_SECONDS, found.count(recorder.HEARTBEATS)
    asked = found.count(recorder.CONFIG_CACHE_HITS) + found.count(recorder.CONFIG_CACHE_MISSES)
    minutes = seconds / 60
    unavailable = found.count("refused_unavailable")
    refused = sum(found.count(f"refused_{code}") for code in recorder.REFUSAL_CODES) - unavailable
    quantiles = {
        f"p{share:.0f}": found.quantile_ms(latency, share / 100) if beats else None
        for share in (50, 95, 99)
    }
    return {
        "beats": beats / seconds,
        **quantiles,
        "trips": found.count(recorder.HEARTBEAT_ROUND_TRIPS) / beats if beats else None,
        "hit_rate": found.hit_rate * 100 if asked else None,
        **{
            f"verdict_{kind}": found.count(f"verdict_{kind}") / seconds
            for kind in recorder.VERDICTS
        },
        **{f"pin_{o}": found.count(f"pin_{o}") / minutes for o in ("right", "wrong", "locked")},
        "errors": found.count(recorder.ERRORS) / minutes,
        "unavailable": unavailable / minutes,
        "refused": refused / minutes,
    }
