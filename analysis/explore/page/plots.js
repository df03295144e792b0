/** Maps, curves and token maps, drawn by Plotly and on a canvas; colours follow the page's. */
"use strict";

/** Plotly, once its script has run. @type {any} */
let plotly;
/** @type {Promise<void>|undefined} */
let loading;

/** Wait for Plotly. Its script takes longest to run: samples and pictures are shown before. */
function drawable() {
  loading = loading || new Promise((ready, fail) => {
    const done = () => {
      plotly = /** @type {any} */ (window).Plotly;
      ready();
    };
    if (given.saved) return document.addEventListener("DOMContentLoaded", done);
    const script = document.createElement("script");
    script.addEventListener("load", done);
    script.addEventListener("error", () => fail(new Error("the plotting library could not be read")));
    script.src = "plotly.js";
    return document.head.append(script);
  });
  return loading;
}

const SERIES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#888888"];
const VIRIDIS = [
  [68, 1, 84], [71, 45, 123], [59, 82, 139], [44, 114, 142], [33, 145, 140],
  [40, 174, 128], [94, 201, 98], [173, 220, 48], [253, 231, 37],
];

/** @param {string} name of a colour in the page's style */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** @param {string} text in which Plotly would read marks of HTML */
function escaped(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
}

function layout() {
  const line = { gridcolor: colour("line"), zerolinecolor: colour("line"), linecolor: colour("line") };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("ink"), family: 'system-ui,"DejaVu Sans",sans-serif', size: 12 },
    margin: { l: 8, r: 8, t: 8, b: 8 },
    xaxis: { ...line, automargin: true, fixedrange: true },
    yaxis: { ...line, automargin: true, fixedrange: true },
    hoverlabel: { font: { family: '"DejaVu Sans Mono",monospace', size: 11 }, align: "left" },
    dragmode: false,
  };
}

const CONFIG = { responsive: true, displayModeBar: false };

/** @param {number[]} steps */
function ticks(steps) {
  return Math.max(1, Math.ceil(steps.length / 8));
}

/**
 * Least and largest of some numbers; null where none is finite.
 * @param {Iterable<number>} values
 * @returns {[number, number]|null}
 */
function range(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (Number.isFinite(value)) [low, high] = [Math.min(low, value), Math.max(high, value)];
  }
  return low > high ? null : [low, high];
}

/**
 * The values of one map, by block and step.
 * @param {Numbers} array @param {Shown} shown @param {Places} places of the other axes
 */
function grid(array, shown, places) {
  const block = /** @type {string} */ (shown.block);
  const count = (/** @type {string} */ axis) => array.shape[shown.dims.indexOf(axis)];
  return Array.from({ length: count(block) }, (_, b) =>
    Array.from({ length: count("step") }, (_, step) =>
      at(array, shown.dims, { ...places, [block]: b, step }),
    ),
  );
}

/**
 * Draw a map. Empty cells are places without a value.
 * @param {HTMLElement} where
 * @param {{values: number[][], blocks: string[], words: (b: number, step: number) => string[],
 *   limits: [number, number], log: boolean, title: string}} map
 */
function drawMap(where, map) {
  const scaled = (/** @type {number} */ v) => (map.log ? Math.log10(v) : v);
  const [low, high] = map.limits.map(scaled);
  const steps = map.values[0].map((_, step) => step);
  const text = map.values.map((row, b) => 
    row.map((_, step) => map.words(b, step).map(escaped).join("<br>")),
  );
  const shown = Array.from({ length: 4 }, (_, i) => low + ((high - low) * i) / 3);
  const trace = {
    type: "heatmap",
    z: map.values.map((row) => row.map((v) => (Number.isFinite(v) ? scaled(v) : null))),
    x: steps,
    y: map.blocks,
    text,
    hovertemplate: "%{text}<extra></extra>",
    colorscale: "Viridis",
    zmin: low,
    zmax: high > low ? high : low + 1,
    colorbar: {
      thickness: 10, outlinewidth: 0, tickvals: shown,
      ticktext: shown.map((v) => Number((map.log ? 10 ** v : v).toPrecision(3)).toString()),
    },
  };
  const base = layout();
  return plotly.react(
    where,
    [trace],
    {
      ...base,
      xaxis: { ...base.xaxis, title: { text: "step" }, dtick: ticks(steps), showgrid: false },
      yaxis: { ...base.yaxis, type: "category", autorange: "reversed", showgrid: false },
    },
    CONFIG,
  );
}

/**
 * Light a cell of a map, and its step's column.
 * @param {HTMLElement} where @param {number} block @param {number} step @param {number} blocks
 */
function light(where, block, step, blocks) {
  const box = (/** @type {number} */ y0, /** @type {number} */ y1, /** @type {object} */ line) => ({
    type: "rect", x0: step - 0.5, x1: step + 0.5, y0, y1, line,
  });
  plotly.relayout(where, {
    shapes: [
      box(-0.5, blocks - 0.5, { color: "rgba(255,255,255,.55)", width: 1 }),
      box(block - 0.5, block + 0.5, { color: "#000", width: 5 }),
      box(block - 0.5, block + 0.5, { color: "#fff", width: 2.5 }),
    ],
  });
}

/**
 * Draw curves. dash: those of the second run are dashed.
 * @param {HTMLElement} where
 * @param {{name: string, x: number[], y: number[], series: number, dash: boolean}[]} curves
 * @param {{x: string, y: string, reversed: boolean}} words
 */
function drawCurves(where, curves, words) {
  const base = layout();
  const traces = curves.map((curve) => ({
    type: "scatter", mode: "lines+markers", name: escaped(curve.name), x: curve.x, y: curve.y,
    line: {
      color: SERIES[curve.series % SERIES.length], width: 2, dash: curve.dash ? "dash" : "solid",
    },
    marker: { size: 4, symbol: curve.dash ? "circle-open" : "circle" },
    hovertemplate: `%{y:.6~g}<extra>${escaped(curve.name)}</extra>`,
  }));
  return plotly.react(
    where,
    traces,
    {
      ...base,
      hovermode: "x",
      showlegend: false,
      xaxis: {
        ...base.xaxis, title: { text: words.x }, autorange: words.reversed ? "reversed" : true,
        ...(words.reversed ? {} : { dtick: ticks(curves.length ? curves[0].x : []) }),
      },
      yaxis: { ...base.yaxis, title: { text: words.y } },
    },
    CONFIG,
  );
}

/**
 * The moving mark of a plot of curves.
 * @param {HTMLElement} where @param {number} x
 */
function mark(where, x) {
  const line = { color: colour("ink"), width: 1.5, dash: "dot" };
  plotly.relayout(where, { shapes: [{ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line }] });
}

/**
 * Paint a token map; a pixel a token.
 * @param {HTMLCanvasElement} canvas
 * @param {number[][]} values by row and column
 * @param {[number, number]} limits
 */
function paint(canvas, values, limits) {
  const [low, high] = limits;
  canvas.height = values.length;
  canvas.width = values[0].length;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(canvas.width, canvas.height);
  values.flat().forEach((value, i) => {
    if (!Number.isFinite(value)) return;
    const place = ((value - low) / (high - low || 1)) * (VIRIDIS.length - 1);
    const below = Math.min(VIRIDIS.length - 2, Math.max(0, Math.floor(place)));
    const [from, to] = [VIRIDIS[below], VIRIDIS[below + 1]];
    const rgb = from.map((c, k) => c + (to[k] - c) * (place - below));
    image.data.set([...rgb, 255], i * 4);
  });
  context.putImageData(image, 0, 0);
}
