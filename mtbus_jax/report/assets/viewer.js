// The view of one case: its pictures with marks, and what the run says about it.
"use strict";

// Approximate pixels along the longer side of a canvas, made a whole multiple of the mask's.
const CANVAS_SIDE = 640;

class Viewer {
  constructor(root) {
    this.root = root;
    this.name = root.querySelector("#case-name");
    this.badges = root.querySelector("#badges");
    this.facts = root.querySelector("#facts");
    this.opacity = root.querySelector("#opacity");
    this.opacityText = root.querySelector("#opacity-text");
    this.panels = [...root.querySelectorAll(".panel")];
    this.shown = -1;
    this.image = null;
    root.querySelector("#pictures").hidden = !run.pictures;
    if (run.pictures) root.style.setProperty("--aspect", run.width / run.height);
    const factor = Math.max(1, Math.round(CANVAS_SIDE / Math.max(run.width, run.height)));
    for (const panel of this.panels) {
      const canvas = panel.querySelector("canvas");
      canvas.width = factor * run.width;
      canvas.height = factor * run.height;
    }
    this.opacity.addEventListener("input", () => {
      const text = this.opacity.value + " %";
      this.opacityText.textContent = text;
      this.opacity.setAttribute("aria-valuetext", text);
      this.paint();
    });
  }

  /** Shows a case. */
  async show(i) {
    this.shown = i;
    this.name.textContent = columns.uid[i];
    this.badges.replaceChildren(
      ...badgesOf(i).map(([text, style]) => make("li", { className: "badge " + style }, text))
    );
    this.facts.replaceChildren(...factsOf(i).map(([term, ...details]) => {
      const className = details.length > 1 ? "long" : "";
      return make("div", { className }, make("dt", {}, term), make("dd", {}, ...details));
    }));
    if (!run.pictures) return;
    const pictures = picturesOf(i);
    const image = new Image();
    image.src = pictures.image;
    await image.decode();
    if (this.shown !== i) return; // another case was chosen meanwhile
    this.image = image;
    this.layers = layersOf(i, pictures);
    this.paint();
  }

  paint() {
    if (!this.image) return;
    const opacity = this.opacity.value / 100;
    for (const panel of this.panels) {
      const layer = this.layers[panel.dataset.layer];
      const canvas = panel.querySelector("canvas");
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = true;
      context.drawImage(this.image, 0, 0, canvas.width, canvas.height);
      paintRegions(context, layer.regions, run.width, run.height, opacity);
      panel.querySelector("figcaption span").textContent = layer.caption;
      const title = panel.querySelector("figcaption b").textContent;
      canvas.setAttribute("aria-label", `${title}. ${layer.description}`);
    }
    this.root.dataset.painted = columns.uid[this.shown];
  }
}

/** What each panel marks, its caption, and its description in words. */
function layersOf(i, pictures) {
  const size = run.width * run.height;
  const truth = decodeMask(pictures.truth, size);
  const lesion = countPixels(truth, truth, inside => inside);
  const known = valueOf("final_dice", i) !== null; // only an unknown mask has no Dice
  const none = known ? "no lesion" : "mask not known";
  const layers = {
    image: { regions: {}, caption: "", description: columns.uid[i] },
    truth: {
      regions: { truth },
      caption: lesion ? "" : none,
      description: lesion ? `A lesion of ${lesion} pixels.` : `${none[0].toUpperCase()}${none.slice(1)}.`,
    },
  };
  if (run.predictions) {
    const prediction = decodeMask(pictures.prediction, size);
    const emptied = valueOf("correction", i) === "mask emptied";
    layers.prediction = predictionLayer(prediction, truth, `Dice ${figure(columns.raw_dice[i])}`);
    const caption = emptied ? "mask emptied" : "unchanged";
    layers.refined = predictionLayer(
      emptied ? new Uint8Array(size) : prediction, truth,
      `${caption}, Dice ${figure(columns.final_dice[i])}`
    );
  }
  return layers;
}

function predictionLayer(prediction, truth, caption) {
  const found = countPixels(prediction, truth, (p, t) => p && t);
  const beside = countPixels(prediction, truth, (p, t) => p && !t);
  const missed = countPixels(prediction, truth, (p, t) => !p && t);
  return {
    regions: errorRegions(prediction, truth),
    caption,
    description: `${caption}. ${found} lesion pixels found, ${missed} missed, ${beside} marked beside.`,
  };
}

/** What is known about a case; each entry is [term, content…]. */
function factsOf(i) {
  const has = name => columns[name] !== undefined;
  const facts = [["True class", className(columns.label[i])]];
  if (has("final_class")) facts.push(["Predicted class", change("class", className, i)]);
  if (has("final_dice")) facts.push(["Dice", change("dice", figure, i)]);
  if (has("hausdorff")) {
    const value = columns.hausdorff[i];
    facts.push(["Hausdorff", value === null ? "undefined" : figure(value, 1) + " px"]);
  }
  if (has("probability")) {
    const title = (run.calibrated ? "Calibrated" : "Uncalibrated") + " class probabilities";
    facts.push([title, ...columns.probability[i].map((p, c) => probabilityBar(className(c), p))]);
  }
  if (has("prediction_set")) {
    const set = columns.prediction_set[i].split("|").join(", ");
    facts.push(["Prediction set", set || "empty"]);
  }
  if (has("uncertainty")) {
    const warned = columns.warning[i] ? ", with a warning" : ", no warning";
    facts.push(["Uncertainty", figure(columns.uncertainty[i]) + warned]);
  }
  if (has("presence")) facts.push(["Lesion, judged by the mask", figure(columns.presence[i])]);
  if (has("probable_class")) {
    const dice = figure(columns.probable_dice[i]);
    facts.push(["Most probable pair", `${className(columns.probable_class[i])}, Dice ${dice}`]);
  }
  facts.push(["Fold", String(columns.fold[i])]);
  return facts;
}

/** A value before and after refining, or once if refining did not change it. */
function change(name, text, i) {
  const after = columns["final_" + name][i];
  const before = valueOf("raw_" + name, i);
  if (before === after || before === undefined) return text(after);
  return `${text(before)} → ${text(after)} by refining`;
}

function probabilityBar(name, probability) {
  const fill = make("i", {});
  fill.style.width = 100 * (probability || 0) + "%";
  return make("span", { className: "probability" }, make("span", {}, name),
    make("span", { className: "track", "aria-hidden": "true" }, fill), figure(probability));
}
