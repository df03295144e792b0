/** What the page knows of the runs: asked of the server, or out of the page itself where it was saved. */
"use strict";

/**
 * @typedef {{kind: "map"|"curve"|"tokens", dims: string[], shape: number[], block: string|null,
 *   group: string, units: string, description: string, line: string, site: string}} Shown
 * @typedef {{name: string, path: string, model: string, created: string, samples: number, steps: number,
 *   sigma: number[]|null, variables: Record<string, Shown>, coordinates: Record<string, any[]>,
 *   opening: Record<string, string>, measure: string}} About
 * @typedef {{shape: number[], kind: "float32"|"float64", data: string}} Stored
 * @typedef {{shape: number[], values: Float32Array|Float64Array}} Numbers
 * @typedef {{count: number, columns: Record<string, {words: string[], codes: number[]}>, done: number[],
 *   kept?: number[]}} Samples
 * @typedef {{sample: number, done: boolean, steps_run: number, pictures: "decoded"|"approximate"|"none",
 *   note: string, reference: boolean, values: Record<string, Stored>}} View
 * @typedef {Record<string, number>} Places  the index along each axis
 */

/** @type {{runs: number, saved: Record<string, any>|null}} */
const given = JSON.parse(/** @type {HTMLElement} */ (document.getElementById("given")).textContent || "");

/** @type {Map<string, Promise<any>>} */
const answers = new Map();
const KEPT = 60;

/**
 * The answer to a question, such as `view?run=0&sample=3`; kept for a while.
 * @param {string} question
 * @returns {Promise<any>}
 */
function ask(question) {
  if (given.saved) {
    if (question in given.saved) return Promise.resolve(given.saved[question]);
    return Promise.reject(new Error("not in this page: stepscope explore shows it from the run itself"));
  }
  let answer = answers.get(question);
  if (!answer) {
    answer = fetch(question).then(async (reply) => {
      const found = await reply.json();
      if (!reply.ok) throw new Error(found.error);
      return found;
    });
    answers.set(question, answer);
    answer.catch(() => answers.delete(question));
    const oldest = answers.keys().next().value;
    if (answers.size > KEPT && oldest !== undefined) answers.delete(oldest);
  }
  return answer;
}

/** Forget what was asked, so that a run that grows is read again. */
function forget() {
  answers.clear();
}

/**
 * Where a picture is; empty where there is none and the page was saved.
 * @param {string} question
 */
function pictureAddress(question) {
  return given.saved ? given.saved[question] || "" : question;
}

/**
 * The numbers of a stored array.
 * @param {Stored} stored
 * @returns {Numbers}
 */
function numbers(stored) {
  const bytes = Uint8Array.from(atob(stored.data), (sign) => sign.charCodeAt(0));
  const values =
    stored.kind === "float32" ? new Float32Array(bytes.buffer) : new Float64Array(bytes.buffer);
  return { shape: stored.shape, values };
}

/**
 * One value of an array.
 * @param {Numbers} array @param {string[]} dims @param {Places} places
 */
function at(array, dims, places) {
  let index = 0;
  dims.forEach((axis, i) => {
    index = index * array.shape[i] + (places[axis] || 0);
  });
  return array.values[index];
}

/**
 * A number as a reader wants it: six digits, no more than float32 holds.
 * @param {number} value
 */
function told(value) {
  if (!Number.isFinite(value)) return "no value";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(4);
  return String(Number(value.toPrecision(6)));
}

/**
 * A template of `variables.line` or `.site` with the values of its axes.
 * @param {string} template @param {Record<string, any>} values @param {boolean} quoted
 */
function filled(template, values, quoted) {
  return template.replace(/\{(\w+)\}/g, (whole, axis) => {
    if (!(axis in values)) return whole;
    return quoted ? JSON.stringify(values[axis]) : String(values[axis]);
  });
}

/**
 * For each sample, the words that a search looks through.
 * @param {Samples} samples
 */
function searchable(samples) {
  const columns = Object.entries(samples.columns);
  return Array.from({ length: samples.count }, (_, i) =>
    columns.map(([name, c]) => `${name} ${c.words[c.codes[i]]}`).join(" ").toLowerCase(),
  );
}

/**
 * What a sample is called in the list: the prompt, which is long, last, where a narrow screen cuts it.
 * @param {Samples} samples @param {number} sample
 */
function called(samples, sample) {
  const last = (/** @type {string} */ name) => Number(name === "prompt");
  const columns = Object.entries(samples.columns).sort(([a], [b]) => last(a) - last(b));
  const words = columns.map(([name, column]) => {
    const word = column.words[column.codes[sample]];
    return !word ? "" : name === "face" || name === "prompt" ? word : `${name} ${word}`;
  });
  const done = samples.done[sample] ? [] : ["not finished"];
  return [String(sample), ...done, ...words.filter(Boolean)].join(" · ");
}

/**
 * What tells a sample from others in both runs: face, prompt and seed, where the seed is known.
 * @param {Samples} from @param {number} sample @param {Samples} to
 */
function compared(from, sample, to) {
  const known = (/** @type {string} */ n) =>
    n !== "seed" || from.columns[n].words[from.columns[n].codes[sample]] !== "";
  return ["face", "prompt", "seed"].filter(
    (n) => n in from.columns && n in to.columns && known(n),
  );
}

/**
 * The sample of another run with the same face, prompt and seed; -1 without.
 * @param {Samples} from @param {number} sample @param {Samples} to
 */
function partner(from, sample, to) {
  const names = compared(from, sample, to);
  const codes = names.map((n) => {
    const word = from.columns[n].words[from.columns[n].codes[sample]];
    return to.columns[n].words.indexOf(word);
  });
  const among = to.kept || Array.from({ length: to.count }, (_, i) => i);
  const found = among.find((i) => names.every((n, k) => to.columns[n].codes[i] === codes[k]));
  return found === undefined ? -1 : found;
}
