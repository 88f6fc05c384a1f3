// A picture and its mask on canvases.
"use strict";

const LONGEST_SIDE = 1600; // pixels of a canvas; larger pictures are shown smaller
const REMOVED = [255, 255, 255];

/** What is kept of an answer for drawing: grey values, mask and outline at the size they are shown. */
function drawable(picture, answer, colour) {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(picture.height, picture.width));
  const size = [picture.height, picture.width];
  const shown = size.map(side => Math.max(1, Math.round(side * scale)));
  const smaller = values => resizedNearest(values, size, shown);
  const line = Math.max(1, Math.round(Math.max(...shown) / 300));
  const drawn = { height: shown[0], width: shown[1], grey: smaller(picture.grey), colour };
  if (!answer.mask) return drawn;
  const removed = !answer.mask.includes(1) && answer.unrefinedMask.includes(1);
  const mask = smaller(removed ? answer.unrefinedMask : answer.mask);
  const outline = outlineOf(mask, ...shown, line);
  if (removed) dash(outline, shown[1], 5 * line);
  return { ...drawn, mask: removed ? null : mask, outline, colour: removed ? REMOVED : colour };
}

/** The pixels of a mask that erosion takes away, `line` of them across. */
function outlineOf(mask, height, width, line) {
  let inside = mask;
  for (let step = 0; step < line; step++) inside = eroded(inside, height, width);
  return mask.map((value, i) => value & (1 - inside[i]));
}

function eroded(mask, height, width) {
  const smaller = new Uint8Array(mask.length);
  for (let row = 1; row < height - 1; row++) {
    for (let i = row * width + 1; i < (row + 1) * width - 1; i++) {
      smaller[i] = mask[i] & mask[i - 1] & mask[i + 1] & mask[i - width] & mask[i + width];
    }
  }
  return smaller;
}

/** Leaves of an outline what lies on the black squares of a chessboard. */
function dash(outline, width, side) {
  for (let i = 0; i < outline.length; i++) {
    const square = Math.floor(Math.floor(i / width) / side) + Math.floor((i % width) / side);
    if (square % 2) outline[i] = 0;
  }
}

/** Paints a picture, with the mask at an opacity of 0 to 1 and its outline, or bare without one. */
function paint(canvas, drawn, opacity = null) {
  const { height, width, grey, mask, outline, colour } = drawn;
  [canvas.width, canvas.height] = [width, height];
  const pixels = new ImageData(width, height);
  for (let i = 0, at = 0; i < grey.length; i++, at += 4) {
    let share = 0;
    if (opacity !== null && outline) share = outline[i] ? 1 : mask && mask[i] ? opacity : 0;
    for (let channel = 0; channel < 3; channel++) {
      pixels.data[at + channel] = (1 - share) * grey[i] + share * colour[channel];
    }
    pixels.data[at + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}
