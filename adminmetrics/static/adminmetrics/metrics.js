/* Draws the charts of the page of metrics and keeps its figures fresh. Without it the figures that
   the server wrote are there all the same. Sets styles by the CSSOM alone: the page's policy allows
   no inline style and no eval. */
"use strict";

(() => {
    const charts = document.querySelector("[data-metrics-charts]");
    const source = charts || document.querySelector("[data-metrics-url]");
    const status = document.querySelector("[data-metrics-status]");
    const trouble = document.querySelector("[data-metrics-trouble]");
    const pause = document.querySelector("[data-metrics-pause]");
    if (!source || !status) {
        return;
    }
    // So many values at most are drawn as points, too.
    const FEW = 6;
    const dashes = [[], [7, 4], [2, 3], [10, 3, 2, 3]];
    const drawn = new Map();
    let data = charts ? JSON.parse(document.getElementById("metrics-data").textContent) : null;
    let timer = 0;
    let isPaused = false;

    const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 16);
    const moment = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ");

    function number(value, unit) {
        if (value === null || value === undefined) {
            return "none";
        }
        const size = Math.abs(value);
        const digits = size >= 100 || Number.isInteger(value) ? 0 : size >= 10 ? 1 : 2;
        const text = value.toLocaleString("en", {maximumFractionDigits: digits});
        return unit ? text + (unit.startsWith("/") || unit === "%" ? unit : " " + unit) : text;
    }

    // --- Figures ---

    function showTiles(tiles) {
        for (const tile of tiles) {
            const place = document.querySelector(`[data-tile="${tile.key}"]`);
            if (place) {
                place.querySelector("dd").textContent = tile.text;
                place.querySelector(".metrics-note").textContent = tile.note;
            }
        }
    }

    // --- Charts ---

    function edgeName(chart, row) {
        return row < chart.edges.length
            ? "up to " + number(chart.edges[row], chart.unit)
            : "over " + number(chart.edges[row - 1], chart.unit);
    }

    function columnsOf(chart) {
        return chart.lines.map(([key]) => data.lines[key] || []);
    }

    function isEmpty(chart) {
        return chart.edges
            ? !data.heat.length
            // A share of none is a figure; a count of none is nothing to draw.
            : !columnsOf(chart).some((column) => column.some(
                (value) => chart.unit === "%" ? value !== null : value));
    }

    function sentence(text) {
        const line = document.createElement("span");
        // The space keeps sentences apart where the lines are read as one text.
        line.textContent = text + " ";
        return line;
    }

    /* What a chart shows, in words: a sentence for each line. */
    function summary(chart) {
        if (chart.edges) {
            const rows = new Map();
            let all = 0;
            for (const [, row, count] of data.heat) {
                rows.set(row, (rows.get(row) || 0) + count);
                all += count;
            }
            const [row, count] = [...rows].sort((a, b) => b[1] - a[1])[0];
            return [sentence(`${number(all)} heartbeats; most of them, ${number(count)}, took ${edgeName(chart, row)}.`)];
        }
        return chart.lines.map(([key, label]) => {
            const known = (data.lines[key] || []).filter((value) => value !== null);
            if (!known.length) {
                return sentence(`${label}: none.`);
            }
            const [last, most] = [known[known.length - 1], Math.max(...known)];
            return sentence(`${label}: ${number(last, chart.unit)} last, ${number(most, chart.unit)} at most.`);
        });
    }

    function readout(chart, index) {
        const at = moment(data.times[index]);
        if (chart.edges) {
            const cells = data.heat.filter((cell) => cell[0] === index);
            const told = cells.map(([, row, count]) => `${number(count)} ${edgeName(chart, row)}`);
            return `${at}: ${told.join("; ") || "none"}`;
        }
        const told = chart.lines.map(
            ([key, label]) => `${label} ${number((data.lines[key] || [])[index], chart.unit)}`
        );
        return `${at}: ${told.join(", ")}`;
    }

    function fillTable(chart, place) {
        const table = document.createElement("table");
        const heads = chart.edges
            ? ["Time", ...chart.edges.map((_, row) => edgeName(chart, row)), edgeName(chart, chart.edges.length)]
            : ["Time", ...chart.lines.map(([, label]) => label)];
        const head = table.createTHead().insertRow();
        for (const text of heads) {
            const cell = document.createElement("th");
            cell.scope = "col";
            cell.textContent = text;
            head.append(cell);
        }
        const counts = new Map(data.heat.map(([index, row, count]) => [`${index} ${row}`, count]));
        const body = table.createTBody();
        for (let index = data.times.length - 1; index >= 0; index--) {
            const row = body.insertRow();
            const time = document.createElement("th");
            time.scope = "row";
            time.textContent = moment(data.times[index]);
            row.append(time);
            heads.slice(1).forEach((_, column) => {
                row.insertCell().textContent = chart.edges
                    ? number(counts.get(`${index} ${column}`) || 0)
                    : number((data.lines[chart.lines[column][0]] || [])[index], chart.unit);
            });
        }
        place.replaceChildren(table);
    }

    function tick(value, unit) {
        return value === null ? "" : number(value, unit);
    }

    function rowName(chart, row) {
        if (row === chart.edges.length) {
            return "more";
        }
        return row in chart.edges ? number(chart.edges[row], chart.unit) : "";
    }

    function axes(chart) {
        const common = {
            stroke: colour("--body-fg"),
            grid: {stroke: colour("--hairline-color"), width: 1},
            ticks: {stroke: colour("--hairline-color"), width: 1},
            font: "12px sans-serif",
        };
        const isLong = data.step >= 3600;
        return [
            {
                ...common,
                size: 34,
                space: isLong ? 90 : 60,
                values: (_, splits) => splits.map((at) => (isLong ? moment(at).slice(5) : clock(at))),
            },
            {
                ...common,
                size: chart.edges ? 84 : 72,
                ...(chart.edges ? {incrs: [1, 2, 4, 8], space: 20} : {}),
                values: (_, splits) =>
                    splits.map((value) => (chart.edges ? rowName(chart, value) : tick(value, chart.unit))),
            },
        ];
    }

    function drawHeat(plot) {
        const most = Math.max(...data.heat.map((cell) => cell[2]));
        const ink = colour("--metrics-heat");
        const width = plot.valToPos(data.step, "x", true) - plot.valToPos(0, "x", true);
        const height = plot.valToPos(0, "y", true) - plot.valToPos(1, "y", true);
        plot.ctx.save();
        for (const [index, row, count] of data.heat) {
            const strength = 0.18 + 0.82 * (Math.log1p(count) / Math.log1p(most));
            plot.ctx.fillStyle = `rgba(${ink}, ${strength})`;
            plot.ctx.fillRect(
                plot.valToPos(data.times[index], "x", true),
                plot.valToPos(row, "y", true) - height / 2,
                Math.max(1, width - 1),
                Math.max(1, height - 1)
            );
        }
        plot.ctx.restore();
    }

    /* The next of 1, 2, 5, 10, ... that is no larger. */
    function rounded(value) {
        const power = 10 ** Math.floor(Math.log10(value));
        return power * [5, 2, 1].find((step) => step * power <= value);
    }

    /* Where a line needs points to be seen: no line is drawn to a value without neighbours, and one
       through a few values is short. Null: no point is missing. */
    function pointsOf(plot, line, isShown) {
        const values = plot.data[line];
        const isKnown = (index) => values[index] !== null && values[index] !== undefined;
        const known = values.map((_, index) => index).filter(isKnown);
        return isShown
            ? null
            : known.filter(
                  (index) => known.length <= FEW || !(isKnown(index - 1) || isKnown(index + 1))
              );
    }

    function span(chart) {
        const [first, last] = [data.times[0], data.times[data.times.length - 1]];
        return [first, Math.max(last + (chart.edges ? data.step : 0), first + data.step)];
    }

    function options(chart, width) {
        const rows = chart.edges ? chart.edges.length : 0;
        return {
            width,
            height: 220,
            padding: [10, 24, 0, 0],
            tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC"),
            legend: {show: false},
            cursor: {y: false, drag: {x: false, y: false}, points: {show: !chart.edges}},
            scales: {
                x: {time: true, range: () => span(chart)},
                y: chart.edges
                    ? {range: [-0.5, rows + 0.5]}
                    : chart.is_log
                      ? {distr: 3, range: (_, low, high) => [rounded(low > 0 ? low / 1.5 : 0.1), (high || 1) * 1.5]}
                      : {range: (_, low, high) => [0, chart.unit === "%" ? 100 : (high || 1) * 1.1]},
            },
            axes: axes(chart),
            series: [
                {},
                ...(chart.edges
                    ? [{paths: () => null, points: {show: false}}]
                    : chart.lines.map((_, index) => ({
                          stroke: colour(`--metrics-${index + 1}`),
                          width: 2,
                          dash: dashes[index],
                          spanGaps: false,
                          points: {size: 7, fill: colour(`--metrics-${index + 1}`), filter: pointsOf},
                      }))),
            ],
            hooks: chart.edges ? {draw: [drawHeat]} : {},
        };
    }

    function columns(chart) {
        return chart.edges
            ? [data.times, data.times.map(() => 0)]
            : [data.times, ...columnsOf(chart)];
    }

    function draw(chart, isAnew) {
        const figure = charts.querySelector(`[data-chart="${chart.key}"]`);
        const canvas = figure.querySelector("[data-canvas]");
        const details = figure.querySelector("details");
        figure.toggleAttribute("data-is-empty", isEmpty(chart));
        figure.querySelector("[data-summary]").replaceChildren(...(isEmpty(chart) ? [] : summary(chart)));
        const old = drawn.get(chart.key);
        if (old && (isAnew || isEmpty(chart))) {
            old.plot.destroy();
            drawn.delete(chart.key);
        }
        if (isEmpty(chart)) {
            return;
        }
        if (drawn.has(chart.key)) {
            old.plot.setData(columns(chart));
        } else {
            const plot = new uPlot(options(chart, canvas.clientWidth || 400), columns(chart), canvas);
            drawn.set(chart.key, {plot, chart, canvas});
        }
        if (details.open) {
            fillTable(chart, figure.querySelector("[data-table]"));
        }
    }

    function pointAt(found, index) {
        const left = found.plot.valToPos(data.times[index], "x");
        found.plot.setCursor({left, top: found.plot.bbox.height / 2 / devicePixelRatio}, false);
        found.index = index;
        const figure = found.canvas.closest("[data-chart]");
        figure.querySelector("[data-readout]").textContent = readout(found.chart, index);
    }

    function onKey(event) {
        const found = drawn.get(event.currentTarget.closest("[data-chart]").dataset.chart);
        const last = data.times.length - 1;
        const from = found && found.index !== undefined ? found.index : last + 1;
        const steps = {ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: last};
        if (!found || !(event.key in steps)) {
            return;
        }
        event.preventDefault();
        pointAt(found, Math.min(Math.max(steps[event.key], 0), last));
    }

    function onMove(event) {
        const figure = event.currentTarget.closest("[data-chart]");
        const found = drawn.get(figure.dataset.chart);
        if (found && found.plot.cursor.idx !== null && found.plot.cursor.idx !== undefined) {
            figure.querySelector("[data-readout]").textContent = readout(found.chart, found.plot.cursor.idx);
        }
    }

    let kinds = [];

    function drawAll() {
        kinds.forEach((chart) => draw(chart, true));
    }

    function start() {
        kinds = data.charts;
        for (const figure of charts.querySelectorAll("[data-chart]")) {
            const canvas = figure.querySelector("[data-canvas]");
            const chart = kinds.find((kind) => kind.key === figure.dataset.chart);
            canvas.addEventListener("keydown", onKey);
            canvas.addEventListener("mousemove", onMove);
            figure.querySelector("details").addEventListener("toggle", (event) => {
                if (event.target.open) {
                    fillTable(chart, figure.querySelector("[data-table]"));
                }
            });
        }
        drawAll();
        let width = charts.clientWidth;
        new ResizeObserver(() => {
            if (Math.abs(charts.clientWidth - width) > 2) {
                width = charts.clientWidth;
                drawAll();
            }
        }).observe(charts);
        new MutationObserver(drawAll).observe(document.documentElement, {
            attributes: true,
            attributeFilter: ["data-theme"],
        });
        matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
    }

    // --- Staying fresh ---

    /* Written only when it changes: whatever is written there is read aloud. */
    function tellTrouble(text) {
        if (trouble.textContent !== text) {
            trouble.textContent = text;
        }
    }

    async function refresh() {
        try {
            const answer = await fetch(source.dataset.metricsUrl, {headers: {Accept: "application/json"}});
            if (answer.redirected) {
                tellTrouble("You are signed out: reload the page to sign in again.");
                return;
            }
            if (!answer.ok) {
                throw new Error(String(answer.status));
            }
            data = await answer.json();
            showTiles(data.tiles);
            kinds.forEach((chart) => draw(chart, false));
            status.textContent = data.as_of ? `Complete up to ${data.as_of}.` : "No process is counting.";
            tellTrouble("");
            document.documentElement.dataset.metricsFresh = String(
                Number(document.documentElement.dataset.metricsFresh || 0) + 1
            );
        } catch (error) {
            tellTrouble("The service does not answer; the figures are older. Trying again.");
        }
        later();
    }

    function later() {
        clearTimeout(timer);
        if (!isPaused) {
            timer = setTimeout(refresh, Number(source.dataset.metricsPoll) * 1000);
        }
    }

    if (pause) {
        pause.hidden = false;
        pause.addEventListener("click", () => {
            isPaused = !isPaused;
            pause.textContent = isPaused ? "Go on" : "Pause";
            if (isPaused) {
                clearTimeout(timer);
            } else {
                refresh();
            }
        });
    }
    if (charts) {
        start();
    }
    later();
})();
