// Puts filters, list, view and the address of the page together.
"use strict";

const form = document.getElementById("filters");
const viewer = new Viewer(document.getElementById("viewer"));
const list = new CaseList(document.getElementById("list"), position => show(position, true));
const NAMES = [...form.elements].filter(control => control.name).map(control => control.name);

let chosen = [];
let position = -1;

/** The current filters, without those at their default. */
function filterState() {
  const entries = NAMES.map(name => [name, form.elements[name].value]);
  return Object.fromEntries(entries.filter(([, value]) => value));
}

/** Filters anew; keeps the case `uid` if it is still there. */
function refresh(uid) {
  chosen = chooseCases(filterState());
  list.setCases(chosen);
  const found = chosen.length === caseCount ? `${caseCount} cases` : `${chosen.length} of ${caseCount} cases`;
  document.getElementById("count").textContent = chosen.length ? found : "No case passes these filters.";
  viewer.root.hidden = !chosen.length;
  const kept = chosen.findIndex(i => columns.uid[i] === uid);
  position = -1;
  if (chosen.length) show(Math.max(0, kept), false);
}

function currentUid() {
  return position < 0 ? "" : columns.uid[chosen[position]];
}

/** Shows the case at a place of the list; `aloud` also tells screen readers and the address. */
function show(at, aloud) {
  position = at;
  const i = chosen[at];
  list.select(at);
  viewer.show(i);
  document.getElementById("position").textContent = `${at + 1} of ${chosen.length}`;
  // Not the disabled property: a disabled button loses the focus, and the keyboard its place.
  document.getElementById("previous").setAttribute("aria-disabled", at === 0);
  document.getElementById("next").setAttribute("aria-disabled", at === chosen.length - 1);
  if (aloud) {
    announce(i, at);
    rememberLater();
  }
}

function step(by) {
  const at = position + by;
  if (at >= 0 && at < chosen.length) show(at, true);
}

/** Calls `action` once things have been quiet for a moment. */
function whenQuiet(action) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), 250);
  };
}

const announce = whenQuiet((i, at) => {
  const said = valueOf("final_class", i);
  const words = [`Case ${at + 1} of ${chosen.length}: ${columns.uid[i]}`, `true class ${className(columns.label[i])}`];
  if (said !== undefined) words.push(`predicted ${className(said)}`);
  if (columns.final_dice) words.push(`Dice ${figure(columns.final_dice[i])}`);
  if (columns.uncertainty) words.push(`uncertainty ${figure(columns.uncertainty[i])}`);
  if (valueOf("warning", i)) words.push("warning");
  if (valueOf("correction", i)) words.push(`corrected: ${columns.correction[i]}`);
  document.getElementById("announcement").textContent = words.join(", ") + ".";
});

/** Writes filters and case into the address, so that it can be kept and shared. */
const rememberLater = whenQuiet(() => {
  const state = new URLSearchParams({ ...filterState(), case: currentUid() });
  history.replaceState(null, "", "#" + state);
});

/** Takes filters and case from the address, if it holds any; says whether it did. */
function recall() {
  const hash = location.hash.slice(1);
  if (!hash.includes("=")) return false;
  const state = new URLSearchParams(hash);
  for (const name of NAMES) {
    const control = form.elements[name];
    const value = state.get(name) || "";
    const known = control.options ? [...control.options].some(o => o.value === value) : true;
    control.value = known ? value : "";
  }
  refresh(state.get("case"));
  return true;
}

form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("input", event => {
  // After sorting, the reader wants to see the first case.
  refresh(event.target.name === "sort" ? "" : currentUid());
  rememberLater();
});
form.addEventListener("reset", () => setTimeout(() => {
  refresh(currentUid());
  rememberLater();
}));
document.getElementById("previous").addEventListener("click", () => step(-1));
document.getElementById("next").addEventListener("click", () => step(1));
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  // Not where the reader types letters, or where arrows already move something else.
  if (event.target.closest("input:not([type=checkbox]), select, textarea, .scroll")) return;
  const letters = document.getElementById("keys").checked;
  if (event.key === "ArrowRight" || (letters && event.key === "j")) step(1);
  else if (event.key === "ArrowLeft" || (letters && event.key === "k")) step(-1);
  else return;
  event.preventDefault();
});
window.addEventListener("hashchange", recall);

document.getElementById("no-script").remove();
document.getElementById("browser").hidden = false;
document.getElementById("filter-box").open = matchMedia("(min-width: 46rem)").matches;
if (recall()) document.getElementById("cases").scrollIntoView({ behavior: "instant" });
else refresh("");
