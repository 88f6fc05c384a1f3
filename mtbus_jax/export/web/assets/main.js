// The page: takes pictures, one after the other, and shows what comes of them.
"use strict";

const facts = JSON.parse(document.getElementById("facts").textContent);
const byId = name => document.getElementById(name);
const results = [];
const failures = [];
const waiting = [];
const usedNames = new Set();
let network = null; // a promise, from the first picture on
let busy = false;
let asked = 0; // files so far
let repainting = 0; // what `requestAnimationFrame` gave

/** Says where things stand, for eyes and screen readers. */
function say(text) {
  byId("status").textContent = text;
}

function fail(text) {
  const box = byId("failure");
  box.textContent = text;
  box.hidden = false;
}

/** Loads the network once; later calls wait for the same. */
function loadNetwork() {
  network ||= startNetwork(facts, say);
  return network;
}

function takeFiles(files) {
  waiting.push(...files);
  asked += files.length;
  if (!busy) work();
}

/** Works through what waits; a file that cannot be used is named, and the rest goes on. */
async function work() {
  busy = true;
  let loaded;
  try {
    loaded = await loadNetwork();
  } catch (error) {
    fail(`The network cannot be started in this browser (${error.message}). Try another browser.`);
    say("");
    return;
  }
  let done = asked - waiting.length;
  while (waiting.length) {
    const file = waiting.shift();
    done++;
    say(`Computing ${file.name}, ${done} of ${asked} …`);
    await breathe();
    await workOn(file, loaded);
  }
  busy = false;
  const failed = failures.length ? `; ${count(failures.length, "file")} could not be read` : "";
  // Who cannot see the page hears the answer at once, if there is but one.
  const answer = results.length === 1 ? `: ${inWords(results[0].row)}` : "";
  say(`${count(results.length, "picture")} done${answer}${failed}.`);
}

function count(number, thing) {
  return `${number} ${thing}${number === 1 ? "" : "s"}`;
}

async function workOn(file, loaded) {
  try {
    let bytes;
    try {
      bytes = new Uint8Array(await file.arrayBuffer());
    } catch {
      throw new Unusable("cannot be opened; is it a folder? Choose the files in it");
    }
    const versions = byId("versions").checked ? facts.versions : [0];
    for await (const picture of readPicture(bytes, file.name)) {
      const answer = await predict(loaded, facts, picture, versions);
      await addResult(file.name, picture, answer);
    }
  } catch (error) {
    const number = error.number ? ` (from frame ${error.number} on)` : "";
    const reason = error instanceof Unusable ? error.message : `failed (${error.message})`;
    addFailure(`${file.name}${number}: ${reason}`);
  }
}

async function addResult(file, picture, answer) {
  const row = measure(file, picture, answer, facts);
  row.name = unusedName(row.name);
  const code = answer.classId;
  const colour = code === null ? facts.noClassColour : facts.colours[code];
  const drawn = { ...drawable(picture, answer, colour), classColour: colour };
  const result = { row, drawn, png: null };
  if (answer.mask) {
    result.png = await maskAsPng(answer.mask, picture.height, picture.width);
    row.mask = `masks/${row.name}.png`;
  }
  results.push(result);
  byId("results").hidden = false;
  byId("cards").append(resultCard(result, facts, opacity()));
  byId("rows").append(tableRow(row, facts));
}

function unusedName(name) {
  let free = name;
  // Some file systems take upper and lower case for one.
  for (let number = 2; usedNames.has(free.toLowerCase()); number++) free = `${name} (${number})`;
  usedNames.add(free.toLowerCase());
  return free;
}

function addFailure(text) {
  failures.push(text);
  byId("failures").hidden = false;
  byId("failed").append(element("li", { textContent: text }));
}

function opacity() {
  return byId("opacity").value / 100;
}

/** Paints all masks again, once for all moves of the slider since the screen was last drawn. */
function repaintSoon() {
  const text = `${byId("opacity").value} %`;
  byId("opacity-text").textContent = text;
  byId("opacity").setAttribute("aria-valuetext", text);
  cancelAnimationFrame(repainting);
  repainting = requestAnimationFrame(() => {
    for (const { canvas, drawn } of results) paint(canvas, drawn, opacity());
  });
}

function saveMasks() {
  const files = results
    .filter(result => result.png)
    .map(({ row, png }) => ({ name: row.mask.replaceAll("\\", "_"), bytes: png }));
  saveFile("masks.zip", zipArchive(files), "application/zip");
}

function prepare() {
  const box = byId("drop");
  const input = byId("files");
  input.addEventListener("change", () => {
    takeFiles([...input.files]);
    input.value = ""; // the same file may be chosen again
  });
  for (const name of ["dragover", "drop"]) {
    // On the whole page: a picture dropped beside the box would replace the page.
    document.addEventListener(name, event => event.preventDefault());
  }
  document.addEventListener("dragover", () => box.classList.add("over"));
  document.addEventListener("dragleave", () => box.classList.remove("over"));
  document.addEventListener("drop", event => {
    box.classList.remove("over");
    takeFiles([...event.dataTransfer.files]);
  });
  byId("opacity").addEventListener("input", repaintSoon);
  byId("save-table").addEventListener("click", () => {
    const text = csvTable(columns(facts.classNames), results.map(({ row }) => row));
    saveFile("predictions.csv", text, "text/csv");
  });
  byId("save-masks").addEventListener("click", saveMasks);
  byId("versions-box").hidden = facts.versions.length < 2;
  for (const name of ["mask-tools", "save-masks"]) byId(name).hidden = !facts.tasks.includes("seg");
  const head = shownColumns(facts).map(([, title]) => {
    return element("th", { textContent: title, scope: "col" });
  });
  byId("head").append(...head);
  byId("work").hidden = false;
  loadNetwork().then(
    () => busy || say("Ready."),
    error => fail(`The network cannot be started in this browser (${error.message}). Try another browser.`),
  );
}

if (!window.browserLacks.length) prepare();
