// Masks: from runs of equal pixels to pixels, and from pixels to marks on a canvas.
"use strict";

/** Pixels, one byte each, 1 inside; `text` holds the lengths of runs in base 36, outside first. */
function decodeMask(text, size) {
  const mask = new Uint8Array(size);
  let at = 0;
  let inside = false;
  for (const length of text ? text.split(" ") : []) {
    const end = at + parseInt(length, 36);
    if (inside) mask.fill(1, at, end);
    at = end;
    inside = !inside;
  }
  return mask;
}

/** How many pixels of `mask` satisfy `test(inMask, inTruth)`. */
function countPixels(mask, truth, test) {
  let count = 0;
  for (let i = 0; i < mask.length; i++) if (test(mask[i], truth[i])) count++;
  return count;
}

/** The pixels found, marked beside the lesion, and missed, as masks by the name of their colour. */
function errorRegions(prediction, truth) {
  return {
    "true-positive": prediction.map((inside, i) => inside & truth[i]),
    "false-positive": prediction.map((inside, i) => inside & (1 - truth[i])),
    "false-negative": prediction.map((inside, i) => (1 - inside) & truth[i]),
  };
}

/** A colour of the style sheet as [red, green, blue]. */
function markColour(name) {
  const hex = getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  return [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
}

/**
 * Fills regions with their colours and outlines them, `width` × `height` pixels on the whole canvas.
 * The outline has twice the opacity, so that slivers stay visible.
 */
function paintRegions(context, regions, width, height, opacity) {
  if (opacity <= 0) return;
  const canvas = context.canvas;
  const small = new OffscreenCanvas(width, height);
  const pixels = new ImageData(width, height);
  for (const [name, region] of Object.entries(regions)) {
    const [red, green, blue] = markColour(name);
    for (let i = 0; i < region.length; i++) {
      if (region[i]) pixels.data.set([red, green, blue, Math.round(255 * opacity)], 4 * i);
    }
  }
  small.getContext("2d").putImageData(pixels, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  context.globalAlpha = Math.min(1, 2 * opacity);
  context.lineWidth = Math.max(1.5, canvas.width / 300);
  context.lineCap = "square";
  for (const [name, region] of Object.entries(regions)) {
    context.strokeStyle = `rgb(${markColour(name).join(" ")})`;
    context.stroke(outline(region, width, height, canvas.width / width, canvas.height / height));
  }
  context.globalAlpha = 1;
}

/** The border of a region along the edges of its pixels; it closes where the frame ends. */
function outline(region, width, height, stepAcross, stepDown) {
  const path = new Path2D();
  const edge = (col1, row1, col2, row2) => {
    path.moveTo(col1 * stepAcross, row1 * stepDown);
    path.lineTo(col2 * stepAcross, row2 * stepDown);
  };
  for (let row = 0, i = 0; row < height; row++) {
    for (let col = 0; col < width; col++, i++) {
      if (!region[i]) continue;
      if (col === 0 || !region[i - 1]) edge(col, row, col, row + 1);
      if (col === width - 1 || !region[i + 1]) edge(col + 1, row, col + 1, row + 1);
      if (row === 0 || !region[i - width]) edge(col, row, col + 1, row);
      if (row === height - 1 || !region[i + width]) edge(col, row + 1, col + 1, row + 1);
    }
  }
  return path;
}
