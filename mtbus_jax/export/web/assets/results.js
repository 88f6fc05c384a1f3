// What is shown of the answers: a card for each picture, a table of all. Names are text, never HTML.
"use strict";

const NOTICE = "Research software, not a medical device.";

/** An element with properties and children, text or elements. */
function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** A card about one result { row, drawn, png }; `opacity` is that of its mask at first. */
function resultCard(result, facts, opacity) {
  const { row, drawn } = result;
  const card = element("article", { className: "result" });
  const title = element("h3", { textContent: row.name });
  card.append(title, answerLine(row, drawn));
  if (row.warning === "uncertain") {
    const text = `Warning: uncertain, probability of being wrong ${row.uncertainty.toFixed(2)}.`;
    card.append(element("p", { className: "warning", textContent: text }));
  }
  result.canvas = element("canvas");
  const bare = element("canvas");
  const panels = element("div", { className: "panels" });
  panels.append(panel(bare, `Picture ${row.name}`, "Picture"));
  if (row.area_px !== undefined) panels.append(panel(result.canvas, `Outline in ${row.name}: ${maskInWords(row)}`, "Outline"));
  card.append(panels);
  paint(bare, drawn);
  paint(result.canvas, drawn, opacity);
  card.append(factList(row, facts));
  if (result.png) {
    const save = element("button", { type: "button", textContent: "Save mask" });
    save.setAttribute("aria-label", `Save the mask of ${row.name} as PNG`);
    save.addEventListener("click", () => saveFile(`${row.name}.png`, result.png, "image/png"));
    card.append(element("p", {}, save));
  }
  card.append(element("p", { className: "note", textContent: NOTICE }));
  return card;
}

function answerLine(row, drawn) {
  const said = row.class === undefined ? maskInWords(row) : row.class;
  const line = element("p", { className: "answer" });
  const swatch = element("span", { className: "swatch" });
  swatch.style.backgroundColor = `rgb(${drawn.classColour.join(" ")})`;
  swatch.setAttribute("aria-hidden", "true");
  line.append(swatch, element("strong", { textContent: said }));
  return line;
}

function maskInWords(row) {
  if (!row.area_px) {
    return row.refined.includes("mask removed") ? "no lesion outlined (removed: dashed)" : "no lesion outlined";
  }
  const mm = row.area_mm2 ? ` = ${row.area_mm2.toFixed(1)} mm²` : "";
  return `lesion of ${row.area_px.toLocaleString("en")} px${mm}`;
}

/** A result in one line: its picture, class and mask. */
function inWords(row) {
  const said = [row.class, row.area_px === undefined ? undefined : maskInWords(row)];
  return [row.name, ...said.filter(each => each !== undefined)].join(", ");
}

function panel(canvas, label, caption) {
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  return element("figure", {}, canvas, element("figcaption", { textContent: caption }));
}

/** What is known of a picture, as terms and values. */
function factList(row, facts) {
  const list = element("dl");
  const add = (term, value) => {
    list.append(element("div", {}, element("dt", { textContent: term }), element("dd", { textContent: value })));
  };
  if (row.class !== undefined) {
    for (const name of facts.classNames) add(name, row[`probability_${name}`].toFixed(3));
  }
  if (row.prediction_set !== undefined) add("cannot be ruled out", row.prediction_set || "no class");
  if (row.area_px !== undefined) {
    add("area", maskInWords(row));
    if (row.parts > 1) add("parts", String(row.parts));
    if (row.bbox_height_mm) {
      add("height × width", `${row.bbox_height_mm.toFixed(1)} × ${row.bbox_width_mm.toFixed(1)} mm`);
    }
  }
  if (row.uncertainty !== undefined) add("probability of being wrong", row.uncertainty.toFixed(2));
  else add("uncertainty", "not calibrated");
  if (!["", "no", "off"].includes(row.refined)) add("refined", row.refined);
  add("size", `${row.height} × ${row.width} px (height × width)`);
  if (row.notes) add("notes", row.notes);
  return list;
}

/** Columns of the table on the page; the file that is saved has all. */
function shownColumns(facts) {
  const classes = facts.tasks.includes("cls");
  const masks = facts.tasks.includes("seg");
  return [
    ["name", "Picture"],
    ...(classes ? [["class", "Class"]] : []),
    ...(classes ? facts.classNames.map(name => [`probability_${name}`, `${name}, probability`]) : []),
    ...(masks ? [["area_px", "Area, px"], ["area_mm2", "Area, mm²"]] : []),
    ...(facts.trust ? [["uncertainty", "Probability of being wrong"]] : []),
    ["warning", "Warning"],
  ];
}

/** A row of the table on the page. */
function tableRow(row, facts) {
  const line = element("tr");
  shownColumns(facts).forEach(([name], place) => {
    const value = row[name];
    // A dash alone is not spoken.
    const nothing = name === "warning" ? "none" : "unknown";
    let text = value === undefined || value === null || value === "" ? nothing : String(value);
    if (typeof value === "number" && !Number.isInteger(value)) text = value.toFixed(3);
    const cell = element(place ? "td" : "th", { textContent: text });
    if (!place) cell.scope = "row";
    line.append(cell);
  });
  return line;
}
