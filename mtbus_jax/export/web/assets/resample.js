// From a picture to the network's input and back. Masks and pictures are compared pixel by pixel
// with those of the library, so every rounding here is one that it does too.
"use strict";

/** The rows, or columns, that nearest-neighbour resizing takes: ⌊i · (1 / (target / source))⌋. */
function sampled(source, target) {
  const step = 1 / (target / source);
  return Int32Array.from({ length: target }, (_, i) => Math.min(Math.floor(i * step), source - 1));
}

/** Grey bytes at another size; `method` is "nearest" or "area". */
function resized(grey, size, target, method) {
  return method === "area" ? resizedByArea(grey, size, target) : resizedNearest(grey, size, target);
}

function resizedNearest(grey, [height, width], [targetHeight, targetWidth]) {
  const rows = sampled(height, targetHeight);
  const cols = sampled(width, targetWidth);
  const small = new Uint8Array(targetHeight * targetWidth);
  for (let row = 0, i = 0; row < targetHeight; row++) {
    for (let col = 0; col < targetWidth; col++) small[i++] = grey[rows[row] * width + cols[col]];
  }
  return small;
}

/**
 * Each pixel is the mean over the area that it covers, rounded half up; pixels covered in part count
 * in part. The sums are whole numbers below 2⁵³, so they are exact.
 */
function resizedByArea(grey, [height, width], [targetHeight, targetWidth]) {
  const rows = overlaps(height, targetHeight);
  const cols = overlaps(width, targetWidth);
  const wide = new Float64Array(height * targetWidth);
  for (let row = 0; row < height; row++) {
    for (let col = 0; col < targetWidth; col++) {
      let sum = 0;
      for (const [from, share] of cols[col]) sum += share * grey[row * width + from];
      wide[row * targetWidth + col] = sum;
    }
  }
  const small = new Uint8Array(targetHeight * targetWidth);
  const count = height * width;
  for (let row = 0; row < targetHeight; row++) {
    for (let col = 0; col < targetWidth; col++) {
      let sum = 0;
      for (const [from, share] of rows[row]) sum += share * wide[from * targetWidth + col];
      // ⌊(2 sum + count) / (2 count)⌋, the quotient mended where division rounds it.
      let mean = Math.floor((2 * sum + count) / (2 * count));
      if (mean * 2 * count > 2 * sum + count) mean--;
      small[row * targetWidth + col] = mean;
    }
  }
  return small;
}

/** For each target pixel the [source pixel, part of it] in it, in parts of 1/target. */
function overlaps(source, target) {
  return Array.from({ length: target }, (_, i) => {
    const [start, end] = [i * source, (i + 1) * source];
    const found = [];
    for (let from = Math.floor(start / target); from * target < end; from++) {
      const part = Math.min(end, (from + 1) * target) - Math.max(start, from * target);
      if (part > 0) found.push([from, part]);
    }
    return found;
  });
}

/**
 * Network values at a picture's size, float32: linear between the pixels that were sampled, constant
 * beyond the last; below the network's size the mean of those that saw one pixel.
 */
function enlarged(values, [height, width], [pictureHeight, pictureWidth]) {
  const cols = shares(width, pictureWidth);
  const rows = shares(height, pictureHeight);
  const tall = new Float32Array(pictureHeight * width);
  for (let row = 0; row < pictureHeight; row++) {
    for (let col = 0; col < width; col++) {
      tall[row * width + col] = combined(rows[row], from => values[from * width + col]);
    }
  }
  const whole = new Float32Array(pictureHeight * pictureWidth);
  for (let row = 0; row < pictureHeight; row++) {
    const line = tall.subarray(row * width, (row + 1) * width);
    for (let col = 0; col < pictureWidth; col++) {
      whole[row * pictureWidth + col] = combined(cols[col], from => line[from]);
    }
  }
  return whole;
}

/** A place between two network pixels, or the mean of several, in steps of float32. */
function combined({ first, last, share }, value) {
  const f = Math.fround;
  if (share !== null) return f(f(value(first) * f(1 - share)) + f(value(last) * share));
  let sum = value(first);
  for (let from = first + 1; from <= last; from++) sum = f(sum + value(from));
  return f(sum / (last - first + 1));
}

/** For each pixel of the picture the network pixels that it is made of. */
function shares(network, original) {
  const seen = sampled(original, network);
  if (original < network) {
    return Array.from({ length: original }, (_, i) => {
      return { first: seen.indexOf(i), last: seen.lastIndexOf(i), share: null };
    });
  }
  let next = 0;
  return Array.from({ length: original }, (_, i) => {
    while (next < network - 1 && seen[next + 1] <= i) next++;
    const last = Math.min(next + 1, network - 1);
    const place = last > next ? (1 / (seen[last] - seen[next])) * (i - seen[next]) + next : next;
    return { first: next, last, share: Math.fround(place - next) };
  });
}
