// The cases: their columns, their pictures, and which of them a filter chooses in which order.
"use strict";

const run = JSON.parse(document.getElementById("case-data").textContent);
const columns = run.columns;
const caseCount = columns.uid.length;

/** Tests of the run's final answer, by option of the filter "Correctness". */
const CORRECTNESS = {
  right: i => !columns.wrong[i],
  wrong: i => Boolean(columns.wrong[i]),
  class_right: i => columns.final_class[i] === columns.label[i],
  class_wrong: i => hasClass(i) && columns.final_class[i] !== columns.label[i],
  mask_good: i => columns.final_dice[i] !== null && columns.final_dice[i] >= run.goodDice,
  mask_poor: i => isPoor(columns.final_dice[i]),
};

/** Whether a Dice is known and low. For an unknown mask it is null, which `<` takes as 0. */
function isPoor(dice) {
  return dice !== null && dice !== undefined && dice < run.goodDice;
}

/** Whether the class of a case is known. */
function hasClass(i) {
  return columns.label[i] !== null;
}

const CORRECTION = {
  any: text => text !== "",
  no: text => text === "",
  emptied: text => text === "mask emptied",
  renamed: text => text === "class set to normal",
};

const SORTED_BY = { dice: "final_dice", uncertainty: "uncertainty" };

/** Indices of the cases that pass every filter of `state`, in its order. */
function chooseCases(state) {
  const tests = [];
  const code = name => run.classes.indexOf(name);
  if (state.class) tests.push(i => columns.label[i] === code(state.class));
  if (state.predicted) tests.push(i => columns.final_class[i] === code(state.predicted));
  if (state.correct) tests.push(CORRECTNESS[state.correct]);
  if (state.warning) tests.push(i => Boolean(columns.warning[i]) === (state.warning === "yes"));
  if (state.correction) tests.push(i => CORRECTION[state.correction](columns.correction[i]));
  if (state.fold) tests.push(i => columns.fold[i] === Number(state.fold));
  if (state.find) {
    const text = state.find.trim().toLowerCase();
    tests.push(i => columns.uid[i].toLowerCase().includes(text));
  }
  const chosen = [];
  for (let i = 0; i < caseCount; i++) if (tests.every(test => test(i))) chosen.push(i);
  if (state.sort) {
    const falling = state.sort.startsWith("-");
    const values = columns[SORTED_BY[state.sort.replace("-", "")]];
    // Undefined values come last in both directions; ties keep the order of the dataset.
    const key = i => (values[i] === null ? Infinity : falling ? -values[i] : values[i]);
    chosen.sort((i, j) => key(i) - key(j) || i - j);
  }
  return chosen;
}

const keptBlocks = new Map();
const MOST_BLOCKS = 8;

/** A case's pictures as text: `image`, `truth` and, if there is one, `prediction`. */
function picturesOf(i) {
  const number = Math.floor(i / run.block);
  let block = keptBlocks.get(number);
  if (!block) {
    block = JSON.parse(document.getElementById("pictures-" + number).textContent);
    keptBlocks.set(number, block);
    if (keptBlocks.size > MOST_BLOCKS) keptBlocks.delete(keptBlocks.keys().next().value);
  }
  const at = i % run.block;
  return {
    image: "data:image/jpeg;base64," + block.image[at],
    truth: block.truth[at],
    prediction: block.prediction && block.prediction[at],
  };
}

/** Name of a class code; a dash where there is none. */
function className(code) {
  return code === null || code === undefined ? "–" : run.classes[code];
}

/** A number for a reader. */
function figure(value, digits = 2) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

/** Value of a column for a case; undefined where the run has no such column. */
function valueOf(name, i) {
  return columns[name] && columns[name][i];
}

/** Badges of a case for its row and its view, each [text, style]. */
function badgesOf(i) {
  const badges = [];
  if (valueOf("final_class", i) !== undefined && hasClass(i)) {
    const right = CORRECTNESS.class_right(i);
    badges.push(right ? ["class right", "good"] : ["class wrong", "bad"]);
  }
  if (isPoor(valueOf("final_dice", i))) badges.push(["Dice below " + run.goodDice, "bad"]);
  if (valueOf("warning", i)) badges.push(["warning", "warn"]);
  if (valueOf("correction", i)) badges.push([columns.correction[i], "changed"]);
  return badges;
}

/** A new element with properties or attributes and children; text never becomes markup. */
function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}
