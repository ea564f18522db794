"""Durations in buckets: every one finds its own, and quantiles are within 2.5 %."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adminmetrics import histograms, queries
from adminmetrics.histograms import LAST, bucket_of, edge, middle, quantile
from adminmetrics.queries import Figures, Sum
from adminmetrics.recorder import HEARTBEAT_SECONDS as NAME

between = st.floats(histograms.SHORTEST * 1.0001, histograms.LONGEST)
anything = st.floats(1e-9, 1e6)
#: Not as short as can be: the longest is known to a microsecond.
requests = st.floats(1e-4, histograms.LONGEST)


@given(between)
def test_a_duration_lies_between_the_edges_of_its_bucket(seconds: float) -> None:
    bucket = bucket_of(seconds)
    assert edge(bucket - 1) * (1 - 1e-9) <= seconds <= edge(bucket) * (1 + 1e-9)


@given(between)
def test_what_stands_for_a_bucket_is_within_two_and_a_half_percent(seconds: float) -> None:
    assert middle(bucket_of(seconds)) == pytest.approx(seconds, rel=0.025)


def test_buckets_grow_by_five_percent_at_most() -> None:
    assert edge(2) / edge(1) <= 1.05
    assert edge(LAST - 1) == pytest.approx(histograms.LONGEST)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, 1e-5, 1e-300, -math.inf])
def test_what_is_no_duration_or_a_very_short_one_is_in_the_first_bucket(seconds: float) -> None:
    assert bucket_of(seconds) == 0


@pytest.mark.parametrize("seconds", [100.001, 1e9, math.inf])
def test_what_is_longer_than_any_is_in_the_last_bucket(seconds: float) -> None:
    assert bucket_of(seconds) == LAST == histograms.SIZE - 1


@given(st.lists(between, min_size=1, max_size=300), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_is_within_two_and_a_half_percent_of_the_true_one(
    durations: list[float], share: float
) -> None:
    counts = Counter(map(bucket_of, durations))
    true = sorted(durations)[math.ceil(share * len(durations) - 1e-9) - 1]
    assert quantile(counts, share) == pytest.approx(true, rel=0.025)


@given(st.lists(st.lists(anything, max_size=50), min_size=1, max_size=8))
def test_merged_histograms_are_that_of_all_durations(parts: list[list[float]]) -> None:
    merged: Counter[int] = Counter()
    for part in parts:
        merged.update(Counter(map(bucket_of, part)))
    assert merged == Counter(bucket_of(seconds) for part in parts for seconds in part)


@given(
    st.lists(st.lists(requests, max_size=60), min_size=1, max_size=8).filter(any),
    st.sampled_from([0.5, 0.95, 0.99]),
)
def test_quantiles_of_merged_processes_are_within_two_and_a_half_percent_of_the_true_ones(
    parts: list[list[float]], share: float
) -> None:
    """However durations are spread over processes; an average of their quantiles would not be."""
    durations = sorted(seconds for part in parts for seconds in part)
    figures = queries.merged(
        Figures(
            {NAME: Sum(len(part), 0, round(max(part, default=0) * 1e6))},
            {NAME: Counter(map(bucket_of, part))},
        )
        for part in parts
    )
    true = durations[math.ceil(share * len(durations) - 1e-9) - 1]
    assert figures.quantile_ms(NAME, share) == pytest.approx(true * 1000, rel=0.025)


def test_of_nothing_there_is_no_quantile() -> None:
    assert quantile({}, 0.95) is None


def test_the_edges_that_are_told_to_others_are_edges_of_buckets() -> None:
    counts = {bucket_of(0.0099): 3, bucket_of(0.0101): 5}
    assert histograms.at_most(counts, 3 * histograms.PER_DECADE) == 3
