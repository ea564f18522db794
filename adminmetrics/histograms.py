"""Durations in buckets that grow by 4.9 %: merged by adding, and quantiles to within 2.5 %.

Pure. 48 buckets to a decade, from 10 microseconds to 100 seconds: bucket 0 holds what was shorter,
the last what was longer. The edges of decades and of their quarters are edges of buckets.
"""

from collections.abc import Mapping
from math import log10

PER_DECADE = 48
SHORTEST = 1e-5
LONGEST = 100.0
LAST = 7 * PER_DECADE + 1
SIZE = LAST + 1


def bucket_of(seconds: float) -> int:
    """The bucket of a duration; what is no duration is as short as can be."""
    if not seconds > SHORTEST:
        return 0
    if seconds > LONGEST:
        return LAST
    return int(log10(seconds) * PER_DECADE + (5 * PER_DECADE + 1))


def edge(bucket: int) -> float:
    """The longest duration that a bucket holds, in seconds; not for the last, which has no end."""
    return float(10 ** (bucket / PER_DECADE - 5))


def middle(bucket: int) -> float:
    """The duration that stands for a bucket's, in seconds: the geometric middle of its edges.

    For the first and the last bucket, which have one edge, it is that.
    """
    if bucket in {0, LAST}:
        return LONGEST if bucket else SHORTEST
    return float(10 ** ((bucket - 0.5) / PER_DECADE - 5))


def quantile(counts: Mapping[int, int], share: float) -> float | None:
    """The duration that this share of all did not exceed, in seconds; None where there are none.

    Within 2.5 % between 10 microseconds and 100 seconds.
    """
    wanted = share * sum(counts.values())
    if not wanted:
        return None
    seen = 0
    bucket = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= wanted:
            break
    return middle(bucket)


def at_most(counts: Mapping[int, int], bucket: int) -> int:
    """How many were no longer than a bucket's edge."""
    return sum(count for index, count in counts.items() if index <= bucket)
