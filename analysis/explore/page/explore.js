/** The page at work: it loads the runs, answers clicks and keys, and shows the view that was chosen. */
"use strict";

/** What two runs' variables of a kind are called, without repetition. @param {Shown["kind"]} kind */
function named(kind) {
  const names = runs.flatMap(({ about }) =>
    Object.keys(about.variables).filter((name) => about.variables[name].kind === kind),
  );
  return [...new Set(names)];
}

/** A variable as one of the runs has it. @param {string} name */
function shownOf(name) {
  return /** @type {Shown} */ (runs.map((r) => r.about.variables[name]).find(Boolean));
}

/** Show the error, or none. @param {any} error */
function complain(error) {
  element("error").hidden = !error;
  element("error").textContent = error ? String(error.message || error) : "";
}

/** Read the chosen sample of each run, and show all of it. */
async function showSample() {
  const now = String(state.samples);
  try {
    const views = await Promise.all(
      runs.map((_, i) => ask(`view?run=${i}&sample=${state.samples[i]}`)),
    );
    if (now !== String(state.samples)) return; // another one was chosen meanwhile
    runs.forEach((run, i) => {
      run.view = views[i];
      run.arrays = Object.fromEntries(
        Object.entries(views[i].values).map(([name, stored]) => [name, numbers(stored)]),
      );
    });
    complain(null);
  } catch (error) {
    runs.forEach((run) => Object.assign(run, { view: null, arrays: {} }));
    complain(error);
  }
  listSamples(runs[0].samples, runs[0].words, state.samples[0]);
  if (runs[1]) {
    element("sample2").value = state.samples[1];
    const same = partner(runs[0].samples, state.samples[0], runs[1].samples) === state.samples[1];
    const names = compared(runs[0].samples, state.samples[0], runs[1].samples);
    const what = names.join(", ").replace(/, (\w+)$/, " and $1");
    element("paired").textContent = same
      ? `the same ${what}`
      : `not of the same ${what}: ${called(runs[1].samples, state.samples[1])}`;
  }
  controlStep();
  runs.forEach(showPicture);
  await new Promise((shown) => {
    requestAnimationFrame(() => setTimeout(shown));
    setTimeout(shown, 1000); // a page in the background draws no frame
  });
  await drawable();
  await showMaps();
  await showCurves();
  await showStep();
}

/** Draw the maps of the chosen variable for the chosen branch and stream. */
async function showMaps() {
  const names = named("map");
  const usual = names.includes(state.variable) ? state.variable : "attention_norm";
  state.variable = offer(element("variable"), names.map((n) => [n, n]), usual);
  const shown = shownOf(state.variable);
  if (!shown) {
    element("meaning").replaceChildren(made("summary", {}, "The run holds no variable of blocks and steps."));
    runs.forEach((run) => (run.map.hidden = true));
    return;
  }
  element("meaning").hidden = !shown.description;
  element("meaning").replaceChildren(
    made("summary", {}, `What ${state.variable} is`), shown.description);
  offerAxes(shown);
  const grids = runs.map((run) => {
    const own = run.about.variables[state.variable];
    const array = run.arrays[state.variable];
    return own && array ? grid(array, own, chosen(run, own).places) : null;
  });
  const blocks = runs.flatMap((run) => run.about.coordinates[shown.block || ""] || []);
  if (!blocks.includes(state.block)) state.block = String(blocks[0]);
  const limits = range(grids.flatMap((g) => (g ? g.flat() : [])));
  const wide = limits !== null && limits[0] > 0 && limits[1] / limits[0] > 20;
  const log = limits !== null && limits[0] > 0 && (state.log === null ? wide : state.log);
  element("log").checked = log;
  element("log").disabled = !limits || limits[0] <= 0;
  await Promise.all(runs.map((run, i) => showMap(run, grids[i], limits, log)));
}

/**
 * @param {Run} run @param {number[][]|null} values @param {[number, number]|null} limits
 * @param {boolean} log
 */
async function showMap(run, values, limits, log) {
  const own = run.about.variables[state.variable];
  const empty = !values || !limits || !range(values.flat());
  run.grid = empty ? null : values;
  run.missing.hidden = run.plot.hidden = run.value.hidden = run.line.hidden = false;
  run.map.querySelector("button").hidden = empty;
  if (empty) {
    run.plot.hidden = run.value.hidden = run.line.hidden = true;
    const all = own ? `${state.variable} has no values here` : `${run.about.name} has no ${state.variable}`;
    run.missing.textContent = run.view && !run.view.done ? "This sample is not finished." : `${all}.`;
    return;
  }
  run.missing.hidden = true;
  const block = own.block || "";
  const names = run.about.coordinates[block].map(String);
  const words = (/** @type {number} */ b, /** @type {number} */ step) => {
    const at = { ...chosen(run, own).words, [block]: names[b], step };
    const [start, end] = filled(own.line, at, true).split(".isel");
    const site = filled(own.site, at, false);
    return [`${told(values[b][step])} at ${site}, step ${step}`, start, `  .isel${end}`];
  };
  await drawMap(run.plot, { values, blocks: names, words, limits, log, title: state.variable });
  run.plot.setAttribute("aria-label", `${state.variable} of ${run.about.name}; arrows move the chosen cell`);
  if (run.plot.dataset.ready) return;
  run.plot.dataset.ready = "1";
  run.plot.on("plotly_click", (/** @type {any} */ event) => {
    const [step, b] = [event.points[0].x, event.points[0].pointIndex[0]];
    const shown = run.about.variables[state.variable];
    state.block = String(run.about.coordinates[shown.block || ""][b]);
    const first = lead();
    state.step = run === first ? step
      : bySigma() ? nearest(first.about.sigma || [], (run.about.sigma || [])[step]) : step;
    run.plot.focus({ preventScroll: true });
    showStep();
  });
}

/** The axes of a variable besides blocks and steps, each with its words to choose from. @param {Shown} shown */
function offerAxes(shown) {
  const axes = shown.dims.filter((axis) => axis !== "step" && axis !== shown.block);
  const labels = axes.map((axis) => {
    const all = runs.flatMap((run) => (run.about.variables[state.variable]
      ? run.about.coordinates[axis].map(String) : []));
    const select = made("select", { id: `axis-${axis}`, "data-axis": axis });
    const options = [...new Set(all)].map((word) => {
      const there = runs.some((run) => hasValues(run, axis, word));
      return [word, there ? word : `${word} (no values)`];
    });
    const usual = options.find(([word, text]) => word === text) || options[0];
    state.words[axis] = offer(select, options, state.words[axis] || usual[0]);
    select.addEventListener("change", () => {
      state.words[axis] = select.value;
      showMaps().then(showStep).then(() => element(`axis-${axis}`).focus());
    });
    return made("label", {}, `${axis} `, select);
  });
  element("axes").replaceChildren(...labels);
}

/** Whether the map of an axis's word has any value. @param {Run} run @param {string} axis @param {string} word */
function hasValues(run, axis, word) {
  const shown = run.about.variables[state.variable];
  const array = run.arrays[state.variable];
  const place = shown ? run.about.coordinates[axis].map(String).indexOf(word) : -1;
  if (!array || place < 0) return false;
  return range(grid(array, shown, { ...chosen(run, shown).places, [axis]: place }).flat()) !== null;
}

/** The slider and its words, at the chosen step. */
function controlStep() {
  const first = lead();
  state.step = Math.min(state.step, first.about.steps - 1);
  element("step").max = first.about.steps - 1;
  element("step").value = state.step;
  const words = stepWords(first, state.step);
  element("where").textContent = words.replace(/^step \d+/, `$& of 0 to ${first.about.steps - 1}`);
  element("step").setAttribute("aria-valuetext", words);
}

/** Everything that moves with the step: pictures, marks, the lit cell and what is said of it. */
async function showStep() {
  controlStep();
  await drawable();
  for (const run of runs) {
    showPicture(run);
    const shown = run.about.variables[state.variable];
    if (run.grid && shown) {
      const { places, words } = chosen(run, shown);
      const [block, step] = [places[shown.block || ""], places.step];
      light(run.plot, block, step, run.grid.length);
      readOut(run, state.variable, run.grid[block][step], words);
    }
  }
  markCurves();
  remember();
  await Promise.all(runs.map(showTokens));
}
