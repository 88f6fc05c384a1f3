// Multi-peak generalised histogram equalisation, to the byte as images/enhancement.py has it; the
// rules and their sources stand there. Sums are whole numbers, and the few operations on fractions
// come in the same order, so that every rounding is the same.
"use strict";

const LEVELS = 256;
const LOCAL_WEIGHT = 8;
const LEAST_HEIGHT = 0.05;
const LEAST_DISTANCE = 15;
const LARGEST_VALLEY = 0.75;

/** Grey bytes as the network was trained on them; `method` is "none" or "multi_peak". */
function enhanced(grey, size, method) {
  return method === "multi_peak" ? equalisedMultiPeak(grey, size) : grey;
}

function equalisedMultiPeak(grey, size) {
  const joined = joinedWithSurroundings(grey, size);
  if (joined === null) return grey;
  const histogram = new Array(LEVELS).fill(0);
  for (const level of joined) histogram[level]++;
  const table = equalising(histogram, valleys(histogram));
  return joined.map(level => table[level]);
}

/** Grey value and Laplacian of each pixel as one byte; null if all are alike. */
function joinedWithSurroundings(grey, [height, width]) {
  const around = new Int32Array(grey.length);
  let [lowest, least, most] = [255, 1, 1];
  for (let row = 0, i = 0; row < height; row++) {
    const rows = [Math.max(row - 1, 0), row, Math.min(row + 1, height - 1)].map(r => r * width);
    for (let col = 0; col < width; col++, i++) {
      const [left, right] = [Math.max(col - 1, 0), Math.min(col + 1, width - 1)];
      let laplacian = 9 * grey[i];
      for (const r of rows) laplacian -= grey[r + left] + grey[r + col] + grey[r + right];
      around[i] = laplacian;
      lowest = Math.min(lowest, grey[i]);
      least = Math.max(least, -laplacian);
      most = Math.max(most, laplacian);
    }
  }
  const joined = new Float64Array(grey.length);
  let [start, end] = [Infinity, -Infinity];
  for (let i = 0; i < grey.length; i++) {
    const largest = around[i] > 0 ? most : least;
    joined[i] = grey[i] - lowest + LOCAL_WEIGHT * (around[i] / (2 * largest));
    start = Math.min(start, joined[i]);
    end = Math.max(end, joined[i]);
  }
  if (start === end) return null;
  const stretch = value => Math.floor(((LEVELS - 1) * (value - start)) / (end - start) + 0.5);
  return Uint8Array.from(joined, stretch);
}

/** The lowest places between neighbouring significant peaks, the first of equals. */
function valleys(histogram) {
  const peaks = significantPeaks(histogram);
  return peaks.slice(1).map((second, i) => {
    let lowest = peaks[i] + 1;
    for (let level = lowest; level < second; level++) {
      if (histogram[level] < histogram[lowest]) lowest = level;
    }
    return lowest;
  });
}

function significantPeaks(heights) {
  const highest = Math.max(...heights);
  let peaks = localMaxima([...heights.keys()], heights);
  peaks = localMaxima(peaks, heights);
  peaks = peaks.filter(peak => heights[peak] >= LEAST_HEIGHT * highest);
  peaks = merged(peaks, heights, (first, second) => second - first < LEAST_DISTANCE);
  return merged(peaks, heights, (first, second) => {
    let sum = 0;
    for (let level = first + 1; level < second; level++) sum += heights[level];
    const mean = sum / (second - first - 1);
    return mean > (LARGEST_VALLEY * (heights[first] + heights[second])) / 2;
  });
}

/** Those of the places that are higher than their neighbours, the last of equal ones. */
function localMaxima(places, heights) {
  const found = [];
  let rising = true;
  places.forEach((place, i) => {
    const next = i + 1 < places.length ? heights[places[i + 1]] : -1;
    if (next < heights[place]) {
      if (rising) found.push(place);
      rising = false;
    } else if (next > heights[place]) {
      rising = true;
    }
  });
  return found;
}

/** Peaks from left to right; of two that are one the higher stays, the left one of equals. */
function merged(peaks, heights, areOne) {
  const kept = [];
  for (const peak of peaks) {
    const last = kept.length - 1;
    if (last < 0 || !areOne(kept[last], peak)) kept.push(peak);
    else if (heights[peak] > heights[kept[last]]) kept[last] = peak;
  }
  return kept;
}

/** What each level becomes; pieces end with a cut, or with the last level. */
function equalising(histogram, cuts) {
  const table = Uint8Array.from({ length: LEVELS }, (_, level) => level);
  let begin = 0;
  for (const end of [...cuts, LEVELS - 1]) {
    const piece = histogram.slice(begin, end + 1);
    const lowest = piece.find(count => count > 0) || 0;
    const total = piece.reduce((sum, count) => sum + count, 0) - lowest;
    let rank = -lowest;
    for (let level = begin; total > 0 && level <= end; level++) {
      rank += histogram[level];
      const [above, below] = [2 * (end - begin) * Math.max(rank, 0) + total, 2 * total];
      // ⌊above / below⌋, the quotient mended where division rounds it.
      let step = Math.floor(above / below);
      if (step * below > above) step--;
      table[level] = begin + step;
    }
    begin = end + 1;
  }
  return table;
}
