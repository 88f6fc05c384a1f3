// The row of the table about one answer, with the columns of `mtbus predict`.
"use strict";

const BOX = ["top", "left", "bottom", "right"];

/** Columns of the table, for a run with these classes. */
function columns(classNames) {
  return [
    "name", "file", "frame", "height", "width",
    "class", ...classNames.map(name => `probability_${name}`), "prediction_set",
    "area_px", "parts", ...BOX.map(side => `bbox_${side}`),
    "area_mm2", "bbox_height_mm", "bbox_width_mm", "spacing_row_mm", "spacing_col_mm",
    "refined", "class_unrefined", "area_px_unrefined",
    "uncertainty", "warning", "notes", "mask",
  ];
}

/** Values by column; what is not known is left out. */
function measure(file, picture, answer, facts) {
  const { height, width, spacing } = picture;
  const notes = [...picture.notes];
  const row = { name: resultName(file, picture), file, frame: picture.number, height, width };
  Object.assign(row, { refined: answer.refined, warning: answer.warning });
  if (answer.classId !== null) {
    row.class = facts.classNames[answer.classId];
    row.class_unrefined = facts.classNames[answer.classBefore];
    facts.classNames.forEach((name, code) => {
      row[`probability_${name}`] = rounded(answer.classProbability[code], 6);
    });
  }
  if (answer.predictionSet) {
    row.prediction_set = facts.classNames.filter((_, code) => answer.predictionSet[code]).join(" ");
  }
  if (answer.uncertainty !== null) row.uncertainty = rounded(answer.uncertainty, 6);
  if (spacing) Object.assign(row, { spacing_row_mm: spacing.row, spacing_col_mm: spacing.col });
  if (answer.mask) {
    row.area_px_unrefined = answer.unrefinedMask.reduce((sum, value) => sum + value, 0);
    const note = measureLesion(row, answer.mask, picture);
    if (note) notes.push(note);
  }
  row.notes = notes.join("; ");
  return row;
}

/** The name of a file's results: without its ending, with the frame if there are several. */
function resultName(file, { number, count }) {
  // "1.2.840" keeps its numbers.
  const stem = file.replace(/\.(png|jpe?g|tiff?|bmp|gif|webp|dcm|dicom|ima)$/i, "");
  return number === null ? stem : `${stem}#${String(number).padStart(String(count).length, "0")}`;
}

/** Adds area, parts and box in pixels, in mm where that holds; returns a note, or "". */
function measureLesion(row, mask, { height, width, spacing }) {
  const { area, parts, box } = lesionParts(mask, height, width);
  Object.assign(row, { area_px: area, parts });
  if (!area) {
    if (spacing) row.area_mm2 = 0;
    return "";
  }
  BOX.forEach((side, i) => { row[`bbox_${side}`] = box[i]; });
  if (!spacing) return "";
  const inside = region => {
    return box[0] >= region[0] && box[1] >= region[1] && box[2] <= region[2] && box[3] <= region[3];
  };
  if (spacing.regions.length && !spacing.regions.some(inside)) {
    return "no mm: the lesion reaches outside of the calibrated region";
  }
  row.area_mm2 = rounded(area * spacing.row * spacing.col, 3);
  row.bbox_height_mm = rounded((box[2] - box[0]) * spacing.row, 3);
  row.bbox_width_mm = rounded((box[3] - box[1]) * spacing.col, 3);
  return "";
}

/** Area, number of parts (which touch at corners too) and half-open box of a mask. */
function lesionParts(mask, height, width) {
  const left = Uint8Array.from(mask);
  const box = [height, width, 0, 0];
  let [area, parts] = [0, 0];
  const waiting = [];
  for (let start = 0; start < left.length; start++) {
    if (!left[start]) continue;
    parts++;
    left[start] = 0;
    waiting.push(start);
    while (waiting.length) {
      const place = waiting.pop();
      const [row, col] = [Math.floor(place / width), place % width];
      area++;
      box[0] = Math.min(box[0], row);
      box[1] = Math.min(box[1], col);
      box[2] = Math.max(box[2], row + 1);
      box[3] = Math.max(box[3], col + 1);
      for (let near = Math.max(0, row - 1); near <= Math.min(height - 1, row + 1); near++) {
        for (let side = Math.max(0, col - 1); side <= Math.min(width - 1, col + 1); side++) {
          const next = near * width + side;
          if (!left[next]) continue;
          left[next] = 0;
          waiting.push(next);
        }
      }
    }
  }
  return { area, parts, box };
}

function rounded(value, digits) {
  return Number(value.toFixed(digits));
}

/** Rows as CSV text; a text that a spreadsheet would take for a formula gets an apostrophe. */
function csvTable(names, rows) {
  const cell = value => {
    if (value === undefined || value === null) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r\n]/.test(value) ? `'${value}` : value;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [names, ...rows.map(row => names.map(name => row[name]))];
  return lines.map(line => line.map(cell).join(",") + "\n").join("");
}
