"""A report in a real browser, on a phone and on a desk: no error, no request, no overflow, and charts with pixels."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report.parts import parts_and_markets

from jaxtrader.evaluation.baselines import BUY_AND_HOLD
from jaxtrader.evaluation.comparison import compare
from jaxtrader.evaluation.importance import Importance
from jaxtrader.evaluation.verdict import POLICY
from jaxtrader.report.comparison_page import comparison_report
from jaxtrader.report.content import make_report
from jaxtrader.report.evidence import fold_table
from jaxtrader.report.page import page

pytestmark = pytest.mark.slow

# Of every chart: whether any of its canvases has a pixel that is not transparent.
PIXELS = """
const drawn = (canvas) =>
  canvas.width && canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((x) => x);
return [...document.querySelectorAll('.chart')].map(
  (chart) => [chart.id, [...chart.querySelectorAll('canvas')].some(drawn)]
);
"""


WIDEST = "return Math.max(...[...document.querySelectorAll('.chart')].map((chart) => chart.offsetWidth))"


CHARTS = {
    "report": {"equity", "drawdown", "rolling", "price", "training"},
    "walk": {"equity", "drawdown", "rolling", "price", "training"},
    "comparison": {"equity", "drawdown", "rolling"},
}


@pytest.fixture(scope="module")
def addresses(tmp_path_factory) -> dict[str, str]:
    parts, markets = parts_and_markets()
    records = [{"steps": step * 1000, "valid_reward_per_bar": step * 1e-6} for step in range(1, 9)]
    report = make_report(
        parts,
        markets,
        title="report",
        verdict=["A verdict."],
        training={"seed 0": records},
        importance=Importance(("a_feature_with_a_long_name", "b"), 0.5, np.array([[0.1, 0.3], [-1.0, -3.0]])),
    )
    tests, market = parts["test"], markets["test"]
    begins = tests[POLICY].times[::100]
    folds = {f"fold {i}": tests for i in range(1, len(begins) + 1)}
    walk = make_report(
        {"all tests": tests},
        {"all tests": market},
        title="walk-forward of a run with a long name-0001",
        verdict=["A verdict."],
        further=[fold_table(folds)],
        training={name: records for name in folds},
        importance=Importance.of([Importance(("a", "b"), 0.5, np.array([[0.1, 0.3], [-1.0, -3.0]]))] * 2),
        folds=begins,
    )
    found = compare({"a run with a long name/0001": parts["test"][POLICY], "other": parts["test"][BUY_AND_HOLD]})
    settings = {name: {"total_steps": str(i)} for i, name in enumerate(found.results)}
    folder: Path = tmp_path_factory.mktemp("report")
    pages = {"report": report, "walk": walk, "comparison": comparison_report(found, settings)}
    for name, each in pages.items():
        (folder / f"{name}.html").write_text(page(each), encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in CHARTS}


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    from selenium import webdriver

    browser, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    assert browser, "the browser test needs chromium and chromedriver: apt-get install chromium chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as started:
        yield started


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        *(("report", width, scheme) for width in (390, 1440) for scheme in ("light", "dark")),
        ("walk", 390, "dark"),
        ("walk", 1440, "light"),
        ("comparison", 390, "light"),
        ("comparison", 1440, "dark"),
    ],
)
def test_a_browser_shows_it(chrome, addresses, name, width, scheme):
    address = addresses[name]
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    chrome.get_log("performance")  # of the page before
    chrome.get(address)
    chrome.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => setTimeout(done, 300))")
    assert chrome.get_log("browser") == []
    requests = [entry["message"] for entry in chrome.get_log("performance")]
    asked = [message for message in requests if "Network.requestWillBeSent" in message and address not in message]
    assert asked == []
    page_width = chrome.execute_script("return document.documentElement.scrollWidth")
    assert page_width <= width
    charts = dict(chrome.execute_script(PIXELS))
    assert set(charts) == CHARTS[name]
    assert all(charts.values()), charts
    bars = "return [...document.querySelectorAll('td.bar rect')].map((bar) => bar.getBoundingClientRect().width)"
    assert min(chrome.execute_script(bars), default=9) > 2
    # On A4 paper: the charts, which were drawn for the window, are scaled to it.
    chrome.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    shrink = chrome.execute_script("return document.documentElement.style.getPropertyValue('--shrink')")
    assert float(shrink) == pytest.approx(min(1, 660 / max(660, chrome.execute_script(WIDEST))))
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics | {"width": 717, "mobile": False})
    assert chrome.execute_script("return document.documentElement.scrollWidth") <= 717
