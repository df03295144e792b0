/** Clicks and keys, and the first view. */
"use strict";

/** Choose a sample of the first run, and of the second the one of the same face, prompt and seed. @param {number} sample */
function chooseSample(sample) {
  state.samples[0] = sample;
  if (runs[1]) state.samples[1] = Math.max(first(runs[1]), partner(runs[0].samples, sample, runs[1].samples));
  return showSample();
}

/** The first sample that there is. @param {Run} run */
function first(run) {
  return run.samples.kept ? run.samples.kept[0] || 0 : 0;
}

/** @param {number} by */
function moveSample(by) {
  const found = listSamples(runs[0].samples, runs[0].words, state.samples[0]);
  const place = found.indexOf(state.samples[0]) + by;
  if (place >= 0 && place < found.length) chooseSample(found[place]);
}

/** @param {number} step */
function moveStep(step) {
  state.step = Math.max(0, Math.min(step, lead().about.steps - 1));
  showStep();
}

/** @param {number} by */
function moveBlock(by) {
  const shown = shownOf(state.variable);
  const blocks = runs.map((run) => run.about.coordinates[shown.block || ""]).find(Boolean) || [];
  const place = blocks.map(String).indexOf(state.block) + by;
  if (place >= 0 && place < blocks.length) state.block = String(blocks[place]);
  showStep();
}

/** The token beside the chosen one, for an arrow; null for another key. @param {string} arrow */
function moved(arrow) {
  const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[arrow];
  const values = runs.map((run) => run.tokens?.values).find(Boolean);
  if (!by || !values) return null;
  const most = [values.length - 1, values[0].length - 1];
  const from = state.token.length ? state.token : [0, 0];
  return from.map((place, i) => Math.max(0, Math.min(most[i], place + by[i])));
}

/** @param {KeyboardEvent} event */
function key(event) {
  const target = /** @type {HTMLElement} */ (event.target);
  const typing = /** @type {HTMLElement} */ (target).matches("select, input:not([type=checkbox])");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const token = target.closest(".frame canvas") && moved(event.key);
  if (token) {
    state.token = token;
    runs.forEach(showToken);
    remember();
    event.preventDefault();
    return;
  }
  const vertical = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  const steps = {
    ArrowLeft: state.step - 1, ArrowRight: state.step + 1, Home: 0, End: lead().about.steps - 1,
  }[event.key];
  if (vertical && event.shiftKey && !target.matches("input, textarea")) moveSample(vertical);
  else if (vertical && target.closest(".map .plot")) moveBlock(vertical);
  else if (steps !== undefined && !event.shiftKey && !typing) moveStep(steps);
  else return;
  event.preventDefault();
}

/** @type {number|undefined} */
let playing;

function play() {
  const on = playing === undefined;
  if (on) playing = window.setInterval(() => moveStep((state.step + 1) % lead().about.steps), 400);
  else {
    clearInterval(playing);
    playing = undefined;
  }
  element("play").textContent = on ? "Pause" : "Play";
  element("play").setAttribute("aria-pressed", String(on));
}

function listen() {
  const on = (/** @type {string} */ id, /** @type {string} */ event, /** @type {() => any} */ work) =>
    element(id).addEventListener(event, work);
  document.addEventListener("keydown", key);
  on("search", "input", () => listSamples(runs[0].samples, runs[0].words, state.samples[0]));
  on("sample", "change", () => chooseSample(Number(element("sample").value)));
  on("sample2", "change", () => {
    state.samples[1] = Number(element("sample2").value);
    showSample();
  });
  on("step", "input", () => moveStep(Number(element("step").value)));
  on("play", "click", play);
  on("variable", "change", () => {
    state.variable = element("variable").value;
    state.log = null;
    showMaps().then(showStep);
  });
  on("log", "change", () => {
    state.log = element("log").checked;
    showMaps().then(showStep);
  });
  on("tokens", "change", () => {
    state.tokens = element("tokens").value;
    element("laid").hidden = !state.tokens;
    showStep();
  });
  on("opacity", "input", () => {
    state.opacity = Number(element("opacity").value);
    runs.forEach((run) => (run.canvas.style.opacity = String(state.opacity / 100)));
    remember();
  });
  on("link", "click", () => copyText(location.href, element("link")));
  for (const radio of document.querySelectorAll("[name=axis]")) {
    radio.addEventListener("change", () => {
      state.axis = /** @type {HTMLInputElement} */ (radio).value;
      showCurves().then(showStep);
    });
  }
  window.addEventListener("hashchange", () => {
    restore(Object.fromEntries(new URLSearchParams(location.hash.slice(1))));
    controls();
    showSample();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showSample);
}

/** The controls as the state has them. */
function controls() {
  runs.forEach((run, i) => {
    const among = run.samples.kept || run.words.map((_, k) => k);
    if (!among.includes(state.samples[i])) {
      const same = i ? partner(runs[0].samples, state.samples[0], run.samples) : -1;
      state.samples[i] = same < 0 ? first(run) : same;
    }
  });
  const names = named("tokens");
  element("overlay").hidden = names.length === 0;
  state.tokens = offer(element("tokens"), [["", "nothing"], ...names.map((n) => [n, n])], state.tokens);
  element("opacity").value = state.opacity;
  element("laid").hidden = !state.tokens;
  const sigma = runs.every((run) => run.about.sigma);
  element("along").hidden = !sigma;
  if (!sigma) state.axis = "step";
  for (const radio of document.querySelectorAll("[name=axis]")) {
    const input = /** @type {HTMLInputElement} */ (radio);
    input.checked = input.value === state.axis;
  }
}

/** Look again at a run that is not finished. */
async function again() {
  forget();
  for (const run of runs) {
    run.about = await ask(`about?run=${number(run)}`);
    run.samples = await ask(`samples?run=${number(run)}`);
    run.words = searchable(run.samples);
  }
  controls();
  if (runs.some((run) => !run.view || !run.view.done)) await showSample();
  else listSamples(runs[0].samples, runs[0].words, state.samples[0]);
}

async function begin() {
  restore(wanted);
  for (let i = 0; i < given.runs; i++) {
    const [about, samples] = await Promise.all([ask(`about?run=${i}`), ask(`samples?run=${i}`)]);
    /** @type {any} */
    const run = { about, samples, words: searchable(samples), view: null, arrays: {}, grid: null };
    runs.push(run);
    build(run);
  }
  document.body.classList.toggle("two", given.runs > 1);
  element("title").textContent = runs.map((run) => run.about.name).join(" beside ");
  element("about").replaceChildren(
    ...runs.map(({ about: a }) =>
      made("p", { class: "note" }, [
        ...(given.runs > 1 ? [a.name] : []), a.model, `${a.steps} steps`, `${a.samples} samples`,
        ...(a.created ? [`recorded ${a.created}`] : []),
      ].join(" · ")),
    ),
  );
  element("second").hidden = given.runs < 2;
  if (runs[1]) element("along-title").textContent = "Runs beside each other at equal";
  if (runs[1]) {
    element("sample-label").textContent = `Sample of ${runs[0].about.name}`;
    element("sample2-label").textContent = `Sample of ${runs[1].about.name}`;
    element("sample2").max = runs[1].about.samples - 1;
  }
  if (runs.some((run) => run.about.samples === 0 || run.about.steps === 0)) {
    complain("The run has no samples yet: open this page again when it has.");
    return;
  }
  buildCurves();
  listen();
  controls();
  await showSample();
  const growing = () => runs.some((run) => run.samples.done.includes(0));
  if (!given.saved) setInterval(() => growing() && again().catch(complain), 15000);
}

begin().catch(complain);
