/** Curves along the steps: identity and sharpness where they were measured, and any other. */
"use strict";

/** What a line of a plot is: its run, its values by step and its name. @typedef {{run: Run, name: string,
 *   series: number, values: number[]}} Line */

/** The lines of each of the two plots. @type {Line[][]} */
const drawn = [[], []];
const USUAL = [["similarity", "reference_dinov2_step", "reference_clip_step"], ["sharpness"]];
/** Axes whose words have units of their own, so that one is chosen and the others are not drawn. */
const CHOSEN = "measure";

/** A place for each plot, with its list of variables. */
function buildCurves() {
  for (const place of [0, 1]) {
    const variable = made("select", { id: `curve${place}` });
    const measure = made("select", { id: `measure${place}` });
    variable.addEventListener("change", () => {
      state.curves[place] = variable.value;
      showCurves().then(showStep);
    });
    measure.addEventListener("change", () => {
      state.measures[place] = measure.value;
      showCurves().then(showStep);
    });
    const which = place ? "Second curve" : "First curve";
    const bar = made("div", { class: "bar" },
      made("label", {}, `${which} `, variable), made("label", { hidden: "" }, "measure ", measure));
    const plot = made("div", { class: "plot", role: "img", "aria-describedby": `now${place}` });
    const now = made("table", { class: "now", id: `now${place}` });
    const none = made("p", { class: "none", hidden: "" });
    element("curves").append(made("div", { id: `curves${place}` }, bar, none, plot, now));
  }
}

/** Draw both plots for the chosen samples. */
async function showCurves() {
  const names = named("curve").filter((name) => runs.some((run) => name in run.arrays));
  const lacking = runs.filter((run) => run.view && run.view.done &&
    !USUAL[0].some((name) => name in run.arrays));
  element("unmeasured").hidden = lacking.length === 0;
  element("unmeasured").replaceChildren(
    ...lacking.flatMap((run) => [
      `Identity of ${run.about.name} along the steps is not measured: `,
      made("code", {}, run.about.measure), made("br"),
    ]),
  );
  for (const place of [0, 1]) {
    const box = element(`curves${place}`);
    const usual = USUAL[place].find((name) => names.includes(name)) || names[place] || "";
    const wanted = names.includes(state.curves[place]) ? state.curves[place] : usual;
    box.hidden = !wanted;
    if (!wanted) continue;
    state.curves[place] = offer(element(`curve${place}`), names.map((n) => [n, n]), wanted);
    await showCurve(place);
  }
}

/** @param {number} place */
async function showCurve(place) {
  const variable = state.curves[place];
  const shown = shownOf(variable);
  const select = element(`measure${place}`);
  const measured = shown.dims.includes(CHOSEN);
  select.parentElement.hidden = !measured;
  if (measured) {
    const words = runs.flatMap((run) => run.about.coordinates[CHOSEN] || []);
    const options = [...new Set(words)].map((word) => [word, word.replace(/_/g, " ")]);
    state.measures[place] = offer(select, options, state.measures[place]);
  } else state.measures[place] = "";
  drawn[place] = runs.flatMap((run) => linesOf(run, variable, state.measures[place]));
  const x = (/** @type {Run} */ run) =>
    bySigma() ? run.about.sigma || [] : Array.from({ length: run.about.steps }, (_, i) => i);
  const curves = drawn[place].map((line) => ({
    name: given.runs > 1 ? `${line.run.about.name}: ${line.name}` : line.name,
    x: x(line.run), y: line.values, series: line.series, dash: number(line.run) > 0,
  }));
  const unit = shown.units === "1" ? "" : ` (${shown.units})`;
  const title = measured ? state.measures[place].replace(/_/g, " ") : variable.replace(/_/g, " ");
  const plot = document.querySelector(`#curves${place} .plot`);
  const none = /** @type {HTMLElement} */ (document.querySelector(`#curves${place} .none`));
  none.hidden = curves.length > 0;
  none.textContent = runs.some((run) => variable in run.arrays)
    ? `${variable} has no number at any step of this sample${measured ? ": no face was found, or there is no reference" : ""}.`
    : `${variable} is not measured of this sample.`;
  /** @type {HTMLElement} */ (plot).hidden = !none.hidden;
  await drawCurves(/** @type {HTMLElement} */ (plot), curves,
    { x: bySigma() ? "sigma" : "step", y: title + unit, reversed: bySigma() });
  plot?.setAttribute("aria-label", `${variable} along the ${bySigma() ? "noise levels" : "steps"}`);
}

/**
 * A line for every word of the other axes that has a value.
 * @param {Run} run @param {string} variable @param {string} measure
 * @returns {Line[]}
 */
function linesOf(run, variable, measure) {
  const [shown, array] = [run.about.variables[variable], run.arrays[variable]];
  if (!shown || !array) return [];
  const axes = shown.dims.filter((axis) => axis !== "step");
  /** @type {Places[]} */
  let places = [{}];
  for (const axis of axes) {
    const words = run.about.coordinates[axis];
    const kept = words.map((_, i) => i).filter((i) => axis !== CHOSEN || words[i] === measure);
    places = places.flatMap((place) => kept.map((i) => ({ ...place, [axis]: i })));
  }
  const lines = places.map((place, series) => ({
    run, series,
    name: axes.filter((axis) => axis !== CHOSEN)
      .map((axis) => run.about.coordinates[axis][place[axis]]).join(", ") || variable,
    values: Array.from({ length: run.about.steps }, (_, step) =>
      at(array, shown.dims, { ...place, step })),
  }));
  return lines.filter((line) => range(line.values));
}

/** Move the marks to the chosen step, and say the values there. */
function markCurves() {
  const first = lead();
  const x = bySigma() ? (first.about.sigma || [])[state.step] : state.step;
  for (const place of [0, 1]) {
    if (element(`curves${place}`).hidden) continue;
    mark(/** @type {any} */ (document.querySelector(`#curves${place} .plot`)), x);
    element(`now${place}`).replaceChildren(...nowRows(drawn[place]));
  }
}

/**
 * A row for every line of a plot: its colour, name and value at the chosen step of each run.
 * @param {Line[]} lines
 */
function nowRows(lines) {
  const many = given.runs > 1;
  const heads = runs.map((run, i) =>
    made("th", { scope: "col" }, `${many ? `${run.about.name}, ${i ? "dashed" : "solid"}, ` : ""}step ${stepOf(run)}`));
  const rows = [...new Set(lines.map((line) => line.name))].map((name) => {
    const own = lines.filter((line) => line.name === name);
    const swatch = made("span", { class: "swatch" });
    swatch.style.background = SERIES[own[0].series % SERIES.length];
    const cells = runs.map((run) => {
      const line = own.find((one) => one.run === run);
      return made("td", {}, line ? told(line.values[stepOf(run)]) : "no number");
    });
    return made("tr", {}, made("th", { scope: "row" }, swatch, name), ...cells);
  });
  return [made("tr", {}, made("td"), ...heads), ...rows];
}
