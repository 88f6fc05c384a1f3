// From stored DICOM values to what a viewer shows: lookup tables, window, polarity (PS3.3 C.11).
//
// A header is { data, little } with what `dicom.js` takes from it. Values of a frame are
// { values, whole, isBool, notes }: whole numbers or not, or only 0 and 1.
"use strict";

const COMMA = "decimal comma read as a point";
const APPLIED = "modality table or rescaling applied";

/** The data sets that apply to a frame, its own group, the shared one or the header. */
function shownOf(header, index) {
  const groups = [];
  const perFrame = header.data.get(0x52009230);
  if (perFrame && perFrame.items && perFrame.items[index]) groups.push(perFrame.items[index]);
  const shared = firstItem(header.data, 0x52009229);
  if (shared) groups.push(shared);
  const first = tag => groups.map(group => firstItem(group, tag)).find(Boolean) || header.data;
  return { modality: first(0x00289145), voi: first(0x00289132) };
}

/** How many bits of a value are used, where the header can be believed, else 0. */
function declaredBits({ stored, allocated }) {
  if (!stored || !allocated || stored > 16 || (stored === allocated && stored > 8)) return 0;
  return stored;
}

/** Grey values after the modality table or rescaling. */
function modalityValues(pixels, header, index) {
  const item = shownOf(header, index).modality;
  const isBool = header.stored === 1;
  if (isBool) pixels = pixels.map(value => (value ? 1 : 0));
  const sequence = firstItem(item, 0x00283000);
  if (sequence) {
    const values = lookedUp(pixels, lookupTable(sequence, header));
    return { values, whole: true, isBool: false, notes: [APPLIED] };
  }
  const { slope, intercept, notes } = rescaling(item);
  if (slope === 1 && intercept === 0) return { values: pixels, whole: true, isBool, notes: [] };
  const values = Float64Array.from(pixels, value => value * slope + intercept);
  const whole = Number.isInteger(slope) && Number.isInteger(intercept);
  return { values, whole, isBool: false, notes: [APPLIED, ...notes] };
}

function rescaling(item) {
  const slopes = decimals(item, 0x00281053, "RescaleSlope");
  const intercepts = decimals(item, 0x00281052, "RescaleIntercept");
  if (!slopes.values.length || !intercepts.values.length) {
    return { slope: 1, intercept: 0, notes: [] };
  }
  const notes = slopes.comma || intercepts.comma ? [COMMA] : [];
  return { slope: slopes.values[0], intercept: intercepts.values[0], notes };
}

/** Grey bytes of a frame and notes; `common` is the scale of all frames, if the header has none. */
function shownGrey(found, header, index, common) {
  const notes = [...found.notes];
  const item = shownOf(header, index).voi;
  const sequence = firstItem(item, 0x00283010);
  let grey = null;
  if (sequence) {
    const table = lookupTable(sequence, header);
    const factor = 255 / (2 ** table.bits - 1);
    grey = Uint8Array.from(lookedUp(found.values, table), value => rint(value * factor));
    notes.push("VOI table applied");
  } else {
    const window = windowOf(item);
    notes.push(...window.notes);
    if (window.width) grey = windowed(found.values, window);
  }
  if (!grey) {
    const scale = headerScale(found.values, header, index) || common || ownScale(found);
    const isEightBits = found.values instanceof Uint8Array && (declaredBits(header) || 8) === 8;
    if (found.isBool) grey = found.values.map(value => 255 * value);
    else if (isEightBits) grey = found.values;
    else grey = toEightBits(found.values, scale);
    if (!found.isBool && !isEightBits && scale.note) notes.push(scale.note);
  }
  if (header.photometric === "MONOCHROME1") {
    grey = grey.map(value => 255 - value);
    notes.push("MONOCHROME1 inverted");
  }
  return { grey: Uint8Array.from(grey), notes };
}

function ownScale({ values, whole }) {
  return scaleOf(whole, ...extent(values));
}

/** The scale of values after the modality step, as the header tells it; null where it does not. */
function headerScale(values, header, index) {
  const item = shownOf(header, index).modality;
  const sequence = firstItem(item, 0x00283000);
  const bits = declaredBits(header);
  let scale;
  if (sequence) {
    scale = scaleOfBits(lookupTable(sequence, header).bits);
  } else if (!bits) {
    return null;
  } else {
    const ends = header.signed ? [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] : [0, 2 ** bits - 1];
    const { slope, intercept } = rescaling(item);
    const [black, white] = ends.map(end => slope * end + intercept).sort((a, b) => a - b);
    const note = black === 0 && white === 255 ? "" : `${bits}-bit values scaled to 8 bits`;
    scale = { black, white, note };
  }
  const [low, high] = extent(values);
  return high <= scale.white && low >= scale.black ? scale : null; // else it says too few bits
}

/** The first window, without a width if there is none that can be applied, and notes. */
function windowOf(item) {
  const centers = decimals(item, 0x00281050, "WindowCenter");
  const widths = decimals(item, 0x00281051, "WindowWidth");
  if (!centers.values.length || !widths.values.length) return { width: 0, notes: [] };
  const shape = (dicomText(item, 0x00281056) || "LINEAR").toUpperCase();
  const [center, width] = [centers.values[0], widths.values[0]];
  const wide = shape === "LINEAR" ? width >= 1 : width > 0;
  if (!wide || !Number.isFinite(center) || !Number.isFinite(width)) {
    return { width: 0, notes: ["window of no width ignored"] };
  }
  const notes = centers.comma || widths.comma ? [COMMA] : [];
  return { center, width, shape, notes: ["window applied", ...notes] };
}

/** The VOI window of PS3.3 C.11.2.1.2 and C.11.2.1.3, to 0..255. */
function windowed(values, { center, width, shape }) {
  let share;
  if (shape === "SIGMOID") {
    share = v => 1 / (1 + Math.exp(Math.min(700, Math.max(-700, (-4 * (v - center)) / width))));
  } else if (shape === "LINEAR" && width === 1) {
    share = v => (v > center - 0.5 ? 1 : 0);
  } else if (shape === "LINEAR" || shape === "LINEAR_EXACT") {
    const [middle, span] = shape === "LINEAR" ? [center - 0.5, width - 1] : [center, width];
    share = v => Math.min(1, Math.max(0, (v - middle) / span + 0.5));
  } else {
    throw new Unusable("has a VOI function that is not supported");
  }
  return Uint8Array.from(values, value => rint(share(value) * 255));
}

/** Entries of a lookup table, the value that the first one belongs to, and their bits. */
function lookupTable(item, header) {
  const { count, first, bits } = tableDescriptor(item, 0x00283002, header);
  const element = item.get(0x00283006);
  if (!element || !element.bytes || !(bits >= 8 && bits <= 16)) {
    throw new Unusable("has a lookup table that cannot be applied");
  }
  const table = tableEntries(element, count, header.little);
  if (!table.length) throw new Unusable("has a lookup table that cannot be applied");
  const most = 2 ** bits - 1;
  return { table: table.map(v => Math.min(v, most)), first, bits };
}

/**
 * Number of entries of a table, value of the first, bits. The second number alone may be signed; a
 * file that leaves types out means that of its pixels (PS3.5, annex A).
 */
function tableDescriptor(item, tag, { little, signed }) {
  const element = item.get(tag);
  const [count, start, bits] = dicomNumbers(item, tag, little);
  const typed = element && element.vr && element.vr !== "UN";
  const negative = typed ? element.vr === "SS" : signed;
  return { count: (count & 0xffff) || 65536, first: negative ? (start << 16) >> 16 : start, bits };
}

/** Entries as words, or as bytes where there are too few bytes for words. */
function tableEntries({ bytes }, count, little) {
  if (bytes.length < 2 * count) return Array.from(bytes.subarray(0, count));
  const numbers = view(bytes);
  return Array.from({ length: count }, (_, i) => numbers.getUint16(2 * i, little));
}

function lookedUp(values, { table, first }) {
  const last = table.length - 1;
  return Float64Array.from(values, value => {
    return table[Math.min(last, Math.max(0, rint(value) - first))];
  });
}

/** Red, green and blue of the values of a frame, by the palette of the header. */
function paletteColours(pixels, header) {
  const { data, little } = header;
  if (data.has(0x00281221)) throw new Unusable("has a segmented palette, which this page does not read");
  const colours = new Uint8Array(3 * pixels.length);
  for (let channel = 0; channel < 3; channel++) {
    const { count, first, bits } = tableDescriptor(data, 0x00281101 + channel, header);
    const element = data.get(0x00281201 + channel);
    if (!element || !element.bytes || !bits) throw new Unusable("has no palette that can be applied");
    const table = tableEntries(element, count, little);
    // Entries of 8 bits may lie in words of 16 (PS3.3 C.7.6.3.1.6).
    const shift = bits === 8 && Math.max(...table.slice(0, 65536)) <= 255 ? 0 : 8;
    const last = table.length - 1;
    for (let i = 0; i < pixels.length; i++) {
      const place = Math.min(last, Math.max(0, pixels[i] - first));
      colours[3 * i + channel] = table[place] >> shift;
    }
  }
  return colours;
}
