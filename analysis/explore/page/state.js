/** What is being looked at, in memory and in the page's address; and the lists of samples. */
"use strict";

/** What of the view a link restores. @type {Record<string, string>} */
const wanted = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));

const state = {
  /** of each run */ samples: [0, 0],
  step: 0,
  variable: "",
  block: "",
  /** @type {Record<string, string>} by axis, the chosen word */ words: {},
  axis: "step",
  /** @type {boolean|null} null: as the variable asks for */ log: null,
  tokens: "",
  opacity: 60,
  /** row and column of the chosen token, if one was */ token: /** @type {number[]} */ ([]),
  /** variables of the plots of curves, and by plot the word of an axis that is not drawn as lines */
  curves: ["", ""],
  measures: ["", ""],
};

/** Read the state out of the address. @param {Record<string, string>} from */
function restore(from) {
  const whole = (/** @type {string} */ key) => Math.max(0, parseInt(from[key], 10) || 0);
  state.samples = [whole("sample"), "sample2" in from ? whole("sample2") : -1];
  state.step = whole("step");
  state.variable = from.variable || "";
  state.block = from.block || "";
  state.axis = from.axis === "sigma" ? "sigma" : "step";
  state.log = "log" in from ? from.log === "1" : null;
  state.tokens = from.tokens || "";
  state.opacity = "opacity" in from ? Math.min(100, whole("opacity")) : 60;
  state.token = (from.token || "").split(",").map(Number).filter(Number.isInteger);
  if (state.token.length !== 2) state.token = [];
  state.curves = [from.curve || "", from.curve2 || ""];
  state.measures = [from.measure || "", from.measure2 || ""];
  state.words = {};
  for (const [key, word] of Object.entries(from)) {
    if (key.startsWith("at.")) state.words[key.slice(3)] = word;
  }
}

/** Write the state into the address, which a link then restores. */
function remember() {
  const kept = new URLSearchParams();
  const put = (/** @type {string} */ key, /** @type {any} */ value) => {
    if (value !== "" && value !== null) kept.set(key, String(value));
  };
  put("sample", state.samples[0]);
  if (given.runs > 1) put("sample2", state.samples[1]);
  put("step", state.step);
  put("variable", state.variable);
  put("block", state.block);
  Object.entries(state.words).forEach(([axis, word]) => put(`at.${axis}`, word));
  put("axis", state.axis);
  put("log", state.log === null ? null : Number(state.log));
  put("tokens", state.tokens);
  if (state.tokens) put("opacity", state.opacity);
  if (state.tokens) put("token", state.token.join(","));
  ["", "2"].forEach((suffix, i) => {
    put(`curve${suffix}`, state.curves[i]);
    put(`measure${suffix}`, state.measures[i]);
  });
  try {
    history.replaceState(null, "", `#${kept}`);
  } catch {
    // a browser takes only so many changes a second: the next one is written
  }
}

/**
 * The element of that id.
 * @param {string} id
 * @returns {any}
 */
function element(id) {
  return document.getElementById(id);
}

/**
 * An element with attributes, properties of its node and children.
 * @param {string} tag @param {Record<string, any>} [about] @param {...(Node|string)} children
 * @returns {any}
 */
function made(tag, about = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(about)) {
    if (value !== undefined) node.setAttribute(key, String(value));
  }
  node.append(...children);
  return node;
}

/**
 * Fill a list to choose from; a word that is not among them becomes the first.
 * @param {any} select @param {string[][]} options value and text @param {string} chosen
 * @returns {string} what is chosen now
 */
function offer(select, options, chosen) {
  const values = options.map(([value]) => value);
  const now = values.includes(chosen) ? chosen : values[0] || "";
  select.replaceChildren(...options.map(([value, text]) => made("option", { value }, text)));
  select.value = now;
  return now;
}

const LISTED = 200;

/**
 * Show the samples that a search finds, those around the chosen one if there are many.
 * @param {Samples} samples @param {string[]} words of each sample @param {number} chosen
 * @returns {number[]} all that were found
 */
function listSamples(samples, words, chosen) {
  const search = element("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const among = samples.kept || words.map((_, i) => i);
  const found = among.filter((i) => search.every((/** @type {string} */ w) => words[i].includes(w)));
  const middle = Math.max(0, found.indexOf(chosen));
  const first = Math.max(0, Math.min(middle - LISTED / 2, found.length - LISTED));
  const listed = found.slice(first, first + LISTED);
  const options = listed.map((i) => [String(i), called(samples, i)]);
  offer(element("sample"), options, String(chosen));
  if (!listed.includes(chosen)) element("sample").selectedIndex = -1;
  element("chosen").textContent = called(samples, chosen);
  const most = found.length > LISTED ? `, ${LISTED} of them listed` : "";
  const unfinished = samples.done.filter((done) => !done).length;
  const all = `${among.length} sample${among.length === 1 ? "" : "s"}`;
  element("matches").textContent =
    (search.length ? `${found.length} of ${all} match${most}` : all + most) +
    (among.length < samples.count ? `; the run has ${samples.count}, this page some of them` : "") +
    (unfinished ? `; ${unfinished} not finished` : "");
  return found;
}
