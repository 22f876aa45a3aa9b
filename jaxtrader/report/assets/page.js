"use strict";
// Draws the charts of a report from the data that the page holds. It asks nothing of any other place.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { createChart, createSeriesMarkers, AreaSeries, LineSeries } = LightweightCharts;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const lines = ["--policy", "#8a94a3", "#c77d16", "#7a5fc0", "#2a9d8f", "#c2556e", "#6b8e23"];
  const lineColour = (i) => (lines[i % lines.length].startsWith("--") ? colour(lines[i % lines.length]) : lines[i % lines.length]);
  const charts = [];
  // A day of the month says its month too, since the axis may have no other mark of that. Null is the usual text.
  const tick = (time, type) =>
    type === 2 ? new Date(1000 * time).toLocaleDateString("en-US", { month: "short", day: "numeric", timeZone: "UTC" }) : null;
  // Nothing lies beyond the first and the last bar, and the labels of these two are not cut off. All bars stay in view
  // where the window changes its width.
  const edges = { minBarSpacing: 0.01, fixLeftEdge: true, fixRightEdge: true, lockVisibleTimeRangeOnResize: true };

  function options() {
    const line = colour("--line");
    return {
      autoSize: true,
      layout: { background: { color: "transparent" }, textColor: colour("--faint"), fontFamily: "inherit", attributionLogo: false, panes: { separatorColor: line, enableResize: false } },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      rightPriceScale: { borderColor: line },
      timeScale: { borderColor: line, timeVisible: data.intraday, secondsVisible: false, tickMarkFormatter: tick, ...edges },
      // A page is scrolled with the wheel or the finger. Charts must not take that away.
      handleScroll: { mouseWheel: false, vertTouchDrag: false },
      handleScale: { mouseWheel: false },
    };
  }

  function chart(id, height, more = {}) {
    const place = document.getElementById(id);
    place.style.height = `${height}px`;
    const made = createChart(place, { ...options(), ...more });
    charts.push(made);
    return made;
  }

  const points = (times, values) =>
    times.map((time, i) => (values[i] === null ? { time } : { time, value: values[i] }));

  function legend(id, names) {
    document.getElementById(id).replaceChildren(...names.map(([name, shade, area]) => {
      const span = document.createElement("span");
      span.textContent = name;
      span.style.setProperty("--swatch", shade);
      if (area) span.className = "area";
      return span;
    }));
  }

  // Validation and test are shaded, and every other fold of a walk-forward.
  const shadeOf = (name) =>
    ({ validation: "--valid", test: "--test" })[name] ?? (/^fold \d*[02468]$/.test(name) ? "--test" : undefined);

  // An area for each part behind the curves, from the bottom of the chart to its top.
  function shade(made) {
    for (const part of data.parts.filter((each) => shadeOf(each.name))) {
      const series = made.addSeries(AreaSeries, {
        priceScaleId: "parts", lastValueVisible: false, priceLineVisible: false, crosshairMarkerVisible: false,
        lineVisible: false, topColor: colour(shadeOf(part.name)), bottomColor: colour(shadeOf(part.name)),
        autoscaleInfoProvider: () => ({ priceRange: { minValue: 0, maxValue: 1 } }),
      });
      series.setData(data.times.slice(part.from, part.to + 1).map((time) => ({ time, value: 1 })));
    }
    made.priceScale("parts").applyOptions({ scaleMargins: { top: 0, bottom: 0 }, visible: false });
  }

  function curves(id, group, height, { log = false, shaded = true, format } = {}) {
    const names = Object.keys(group);
    if (!names.length || !document.getElementById(id)) return;
    const made = chart(id, height, { rightPriceScale: { mode: log ? 1 : 0, borderColor: colour("--line") } });
    if (shaded) shade(made);
    // The policy is drawn last, on top.
    [...names.entries()].reverse().forEach(([i, name]) => {
      const series = made.addSeries(LineSeries, {
        color: lineColour(i), lineWidth: i === 0 ? 2 : 1, priceLineVisible: false, lastValueVisible: false,
        priceFormat: { type: "custom", minMove: 1e-6, formatter: format ?? ((x) => x.toPrecision(3)) },
      });
      series.setData(points(data.times, group[name]));
    });
    made.timeScale().fitContent();
    const areas = shaded ? data.parts.filter((part) => shadeOf(part.name)) : [];
    const folds = areas.filter((part) => part.name.startsWith("fold"));
    legend(`${id}-legend`, [
      ...names.map((name, i) => [name, lineColour(i), false]),
      ...areas.filter((part) => !folds.includes(part)).map((part) => [part.name, colour(shadeOf(part.name)), true]),
      ...(folds.length ? [["every other fold", colour("--test"), true]] : []),
    ]);
    return made;
  }

  const percent = (x) => `${(100 * x).toFixed(Math.abs(x) < 0.1 ? 1 : 0)}%`;

  let priceChart = null;
  function price(symbol) {
    if (priceChart) {
      charts.splice(charts.indexOf(priceChart), 1);
      priceChart.remove();
    }
    priceChart = chart("price", 380);
    const digits = Math.max(...symbol.close) < 10 ? 4 : 2;
    const close = priceChart.addSeries(LineSeries, {
      color: colour("--ink"), lineWidth: 1, priceLineVisible: false,
      priceFormat: { type: "custom", minMove: 1e-6, formatter: (x) => x.toFixed(digits) },
    });
    close.setData(points(symbol.times, symbol.close));
    // The exposure has a pane of its own below the price.
    const exposure = priceChart.addSeries(AreaSeries, {
      lineColor: colour("--policy"), lineWidth: 1, topColor: colour("--test"),
      bottomColor: "transparent", priceLineVisible: false, lastValueVisible: false, lineType: 1,
      priceFormat: { type: "custom", minMove: 1e-6, formatter: percent },
      autoscaleInfoProvider: (original) => {
        const found = original();
        if (found) found.priceRange.minValue = Math.min(found.priceRange.minValue, 0);
        return found;
      },
    }, 1);
    exposure.priceScale().applyOptions({ scaleMargins: { top: 0.12, bottom: 0.04 } });
    close.priceScale().applyOptions({ scaleMargins: { top: 0.08, bottom: 0.08 } });
    priceChart.panes().forEach((pane, i) => pane.setStretchFactor(i === 0 ? 3 : 1));
    exposure.setData(points(symbol.times, symbol.exposure));
    createSeriesMarkers(close, symbol.fills.map(([time, side]) => ({
      time, position: side > 0 ? "belowBar" : "aboveBar", shape: side > 0 ? "arrowUp" : "arrowDown",
      color: side > 0 ? colour("--good") : colour("--bad"), size: 0.6,
    })));
    priceChart.timeScale().fitContent();
    legend("price-legend", [
      ["close", colour("--ink"), false], ["exposure", colour("--policy"), true],
      ["buy", colour("--good"), false], ["sell", colour("--bad"), false],
    ]);
  }

  function training() {
    if (!document.getElementById("training")) return;
    // Steps take the place of time: the axis counts seconds, and a step is one of them.
    const made = chart("training", 220, {
      timeScale: { borderColor: colour("--line"), tickMarkFormatter: (x) => `${(x / 1e6).toPrecision(2)}M`, ...edges },
      localization: { timeFormatter: (x) => `${x.toLocaleString()} steps` },
    });
    const names = data.training.map((run, i) => {
      const series = made.addSeries(LineSeries, {
        color: lineColour(i), lineWidth: 2, priceLineVisible: false, lastValueVisible: false,
        priceFormat: { type: "custom", minMove: 1e-9, formatter: (x) => `${(1e4 * x).toFixed(2)} bp` },
      });
      series.setData(points(run.steps, run.score));
      return [run.name, lineColour(i), false];
    });
    made.timeScale().fitContent();
    legend("training-legend", names);
  }

  function draw() {
    curves("equity", data.equity, 340, { log: true, format: (x) => x.toFixed(2) });
    curves("drawdown", data.drawdown, 180, { format: percent });
    curves("rolling", data.rolling, 180, { format: (x) => x.toFixed(1) });
    training();
    const picker = document.getElementById("symbol");
    if (data.symbols.length) price(data.symbols[picker ? picker.selectedIndex : 0]);
  }

  document.getElementById("symbol")?.addEventListener("change", (event) => price(data.symbols[event.target.selectedIndex]));
  dark.addEventListener("change", () => {
    charts.splice(0).forEach((made) => made.remove());
    priceChart = null;
    draw();
  });
  // A page is printed without another frame, so the charts keep their size in pixels, and are scaled to the paper.
  const PAPER = 660;
  window.addEventListener("beforeprint", () => {
    const widest = Math.max(PAPER, ...charts.map((made) => made.chartElement().offsetWidth));
    document.documentElement.style.setProperty("--shrink", PAPER / widest);
  });
  draw();
})();
