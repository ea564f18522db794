"""The dashboard and the alerts ask for metrics that the service tells."""

import json
import re
from pathlib import Path

import pytest

from adminmetrics import exposition
from adminmetrics.queries import Figures, Service
from parentalcontrols.tests.cast import database_now

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "viewingtime.json").read_text())
ALERTS = (DEPLOY / "prometheus" / "alerts.yml").read_text()
_METRIC = re.compile(r"\bviewingtime_[a-z_]+\b")


@pytest.fixture
def told(db: None) -> set[str]:
    """Every name that `/metrics` tells."""
    service = Service(database_now(), 0, None, 0, {})
    text = exposition.text(Figures({}, {}), service).decode()
    return {found[0] for found in _METRIC.finditer(re.sub("^#.*$", "", text, flags=re.M))}


def test_the_dashboard_shows_nothing_that_is_not_told(told: set[str]) -> None:
    asked = {
        found[0]
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
        for found in _METRIC.finditer(target["expr"])
    }
    assert len(asked) > 10
    assert asked <= told


def test_its_panels_do_not_cover_each_other() -> None:
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert max(x for x, _ in taken) == 23


def test_the_alerts_watch_nothing_that_is_not_told(told: set[str]) -> None:
    asked = {found[0] for found in _METRIC.finditer(ALERTS)}
    assert len(asked) > 5
    assert asked <= told
