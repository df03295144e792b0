/** A run's panels: its picture with a token map over it, and its map of blocks by steps. */
"use strict";

/**
 * @typedef {{about: About, samples: Samples, words: string[], view: View|null,
 *   arrays: Record<string, Numbers>, picture: any, image: any, canvas: any, none: any, caption: any,
 *   face: any, map: any, plot: any, value: any, line: any, missing: any, grid: number[][]|null,
 *   tokens: {values: number[][], words: Record<string, any>}|null, token: any, lit: any}} Run
 */

/** @type {Run[]} */
const runs = [];

const number = (/** @type {Run} */ run) => runs.indexOf(run);

/** The run with most steps: the slider goes over its steps. */
function lead() {
  return runs.reduce((most, run) => (run.about.steps > most.about.steps ? run : most));
}

/** Whether runs are compared, and curves drawn, by sigma. */
function bySigma() {
  return state.axis === "sigma" && runs.every((run) => run.about.sigma);
}

/**
 * The place of the number nearest to another.
 * @param {number[]} numbers @param {number} wanted
 */
function nearest(numbers, wanted) {
  const apart = numbers.map((one) => Math.abs(one - wanted));
  return apart.indexOf(Math.min(...apart));
}

/** The step of a run that stands beside the chosen one: the same, or of the nearest sigma. @param {Run} run */
function stepOf(run) {
  const first = lead();
  if (run === first) return state.step;
  if (bySigma()) return nearest(run.about.sigma || [], (first.about.sigma || [])[state.step]);
  return Math.min(state.step, run.about.steps - 1);
}

/**
 * A step with its sigma, in words.
 * @param {Run} run @param {number} step
 */
function stepWords(run, step) {
  const sigma = run.about.sigma ? `, sigma ${Number(run.about.sigma[step].toPrecision(3))}` : "";
  const last = !bySigma() && step < state.step ? ", its last" : "";
  return `step ${step}${last}${sigma}`;
}

/**
 * Where the chosen cell is along each axis of a variable, and what it is called there.
 * @param {Run} run @param {Shown} shown
 */
function chosen(run, shown) {
  /** @type {Places} */
  const places = {};
  /** @type {Record<string, any>} */
  const words = { sample: state.samples[number(run)] };
  for (const axis of shown.dims) {
    if (axis === "token_y" || axis === "token_x") continue;
    const values = run.about.coordinates[axis];
    const word = axis === shown.block ? state.block : state.words[axis];
    places[axis] = axis === "step" ? stepOf(run) : Math.max(0, values.map(String).indexOf(word));
    words[axis] = axis === "step" ? places[axis] : values[places[axis]];
  }
  return { places, words };
}

/** A run's picture and its map. @param {Run} run */
function build(run) {
  run.image = made("img", { alt: "" });
  const told = `token${number(run)}`;
  run.canvas = made("canvas", {
    hidden: "", tabindex: "0", role: "application", "aria-describedby": told,
    "aria-roledescription": "map of image tokens",
  });
  run.canvas.addEventListener("click", (/** @type {MouseEvent} */ event) => pickToken(run, event));
  run.token = made("div", { id: told, role: "status" });
  run.none = made("p", { class: "none", hidden: "" });
  run.caption = made("figcaption");
  run.face = made("img", { class: "face", alt: "Reference face", title: "Reference face", hidden: "" });
  run.lit = made("div", { class: "lit", hidden: "" });
  const frame = made("div", { class: "frame" }, run.image, run.canvas, run.lit, run.none, run.face);
  run.image.addEventListener("error", () => noPicture(run, "this step did not run"));
  run.image.addEventListener("load", () => {
    frame.style.setProperty("--shape", run.image.naturalWidth / run.image.naturalHeight);
  });
  run.picture = made("figure", {}, frame, run.caption, run.token);
  const id = `value${number(run)}`;
  run.plot = made("div", {
    class: "plot", tabindex: "0", role: "application", "aria-roledescription": "map of blocks by steps",
    "aria-describedby": id,
  });
  run.value = made("p", { class: "value", id, role: "status" });
  run.line = made("pre", { tabindex: "0", "aria-label": `Python for this value, ${run.about.name}` });
  run.missing = made("p", { class: "note", hidden: "" });
  const copy = made("button", { type: "button" }, "Copy the Python");
  copy.onclick = () => copyText(run.line.textContent, copy);
  const heading = given.runs > 1 ? [made("h3", {}, run.about.name)] : [];
  run.map = made("div", { class: "map" }, ...heading, run.missing, run.plot, run.value, run.line, copy);
  element("pictures").append(run.picture);
  element("maps").append(run.map);
}

/** @param {string} text @param {any} button that says so */
function copyText(text, button) {
  const before = button.dataset.text || button.textContent;
  button.dataset.text = before;
  const say = (/** @type {string} */ word) => {
    button.textContent = word;
    setTimeout(() => (button.textContent = before), 1500);
  };
  // there is no clipboard for a page that came by http from another machine
  Promise.resolve(navigator.clipboard?.writeText(text) ?? Promise.reject()).then(
    () => say("Copied"),
    () => say("Select and copy it yourself"),
  );
}

/** @param {Run} run @param {string} why */
function noPicture(run, why) {
  run.image.hidden = true;
  run.image.removeAttribute("src");
  run.none.hidden = false;
  run.none.textContent = why;
}

/** Show the picture of the run's step. @param {Run} run */
function showPicture(run) {
  const view = run.view;
  const [sample, step] = [state.samples[number(run)], stepOf(run)];
  const kinds = { decoded: "decoded x0", approximate: "x0, colours approximate", none: "no picture" };
  const name = given.runs > 1 ? `${run.about.name}, ` : "";
  const words = `${name}sample ${sample}, ${stepWords(run, step)}`;
  run.caption.textContent = words;
  run.face.hidden = !view || !view.reference;
  if (!view) return noPicture(run, "this sample could not be read");
  if (!view.done) return noPicture(run, "This sample is not finished: nothing of it is in the run yet.");
  if (view.pictures === "none") return noPicture(run, view.note);
  const place = `run=${number(run)}&sample=${sample}`;
  const address = pictureAddress(`frame?${place}&step=${step}`);
  const ended = view.steps_run >= 0 && step >= view.steps_run;
  if (!address || ended) return noPicture(run, "this step did not run");
  run.caption.append(`: ${kinds[view.pictures]}`);
  if (view.note) run.caption.append(made("br"), view.note);
  run.none.hidden = true;
  run.image.hidden = false;
  const whom = view.reference ? pictureAddress(`face?${place}`) : "";
  if (whom && run.face.getAttribute("src") !== whom) run.face.src = whom;
  run.image.alt = `Picture of ${words}`;
  run.image.src = address;
}

/** Lay the chosen token map over the run's picture. @param {Run} run */
async function showTokens(run) {
  const shown = run.about.variables[state.tokens];
  run.canvas.hidden = run.lit.hidden = true;
  run.tokens = null;
  run.token.replaceChildren();
  if (!state.tokens || !run.view || !run.view.done) return;
  if (!shown) return run.caption.append(made("br"), `${run.about.name} has no ${state.tokens}`);
  const { places, words } = chosen(run, shown);
  const where = `run=${number(run)}&sample=${words.sample}&step=${places.step}`;
  const now = JSON.stringify([places, words, state.tokens]);
  run.canvas.dataset.now = now;
  /** @type {Stored} */
  let stored;
  try {
    stored = await ask(`tokens?${where}&variable=${encodeURIComponent(state.tokens)}`);
  } catch (error) {
    run.caption.append(made("br"), `Token map: ${/** @type {Error} */ (error).message}`);
    return;
  }
  if (run.canvas.dataset.now !== now) return;
  const array = numbers(stored);
  const dims = shown.dims.filter((axis) => axis !== "step");
  const [height, width] = array.shape.slice(-2);
  const values = Array.from({ length: height }, (_, y) =>
    Array.from({ length: width }, (_, x) => at(array, dims, { ...places, token_y: y, token_x: x })),
  );
  const limits = range(values.flat());
  const site = filled(shown.site, words, false);
  if (!limits) {
    run.caption.append(made("br"), `${state.tokens} has no values at ${site}`);
    return;
  }
  paint(run.canvas, values, limits);
  run.face.hidden = true; // it would cover tokens
  run.canvas.hidden = false;
  run.canvas.style.opacity = String(state.opacity / 100);
  run.canvas.setAttribute("aria-label", `${state.tokens} at ${site}; arrows move the chosen token`);
  run.tokens = { values, words };
  showToken(run);
  const most = values.flat().indexOf(limits[1]);
  const place = `row ${Math.floor(most / width)}, column ${most % width}`;
  run.caption.append(
    made("br"),
    `${state.tokens} at ${site}: ${told(limits[0])} (dark) to ${told(limits[1])} (bright, token ${place})`,
  );
}

/** Choose the token under the pointer. @param {Run} run @param {MouseEvent} event */
function pickToken(run, event) {
  const { offsetX, offsetY } = event;
  const { clientWidth, clientHeight, width, height } = run.canvas;
  const place = (/** @type {number} */ at, /** @type {number} */ whole, /** @type {number} */ count) =>
    Math.max(0, Math.min(count - 1, Math.floor((at / whole) * count)));
  state.token = [place(offsetY, clientHeight, height), place(offsetX, clientWidth, width)];
  runs.forEach(showToken);
  remember();
}

/** Say what the chosen token's value is, and which Python selects it. @param {Run} run */
function showToken(run) {
  const [y, x] = state.token;
  const value = run.tokens?.values[y]?.[x];
  run.lit.hidden = value === undefined;
  if (value === undefined || !run.tokens) return run.token.replaceChildren();
  const { words, values } = run.tokens;
  const shown = run.about.variables[state.tokens];
  const [height, width] = [values.length, values[0].length];
  const box = { left: x / width, top: y / height, width: 1 / width, height: 1 / height };
  Object.entries(box).forEach(([side, part]) => (run.lit.style[side] = `${100 * part}%`));
  const python = filled(shown.line, { ...words, token_y: y, token_x: x }, true);
  run.token.replaceChildren(
    made("p", { class: "value" }, `${state.tokens} is ${told(value)} at token row ${y}, column ${x}`),
    made("pre", {}, `${run.about.opening[shown.group]}\n${python}`),
  );
}

/**
 * Say what the chosen cell is, and which Python selects it.
 * @param {Run} run @param {string} variable @param {number} value @param {Record<string, any>} words
 */
function readOut(run, variable, value, words) {
  const shown = run.about.variables[variable];
  const axes = shown.dims.filter((axis) => !["step", shown.block].includes(axis));
  const more = axes.map((axis) => `${axis} ${words[axis]}`);
  const where = [filled(shown.site, words, false), `step ${words.step}`, ...more].join(", ");
  const unit = shown.units === "1" ? "" : ` ${shown.units}`;
  const has = Number.isFinite(value) ? `is ${told(value)}${unit}` : "has no value";
  const text = `${variable} ${has} at ${where}; sample ${words.sample} of ${run.about.name}`;
  if (run.value.textContent !== text) run.value.textContent = text;
  run.line.textContent = `${run.about.opening[shown.group]}\n${filled(shown.line, words, true)}`;
}
