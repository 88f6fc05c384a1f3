// The structure of a DICOM file (PS3.5): elements by tag, and the frames of its pixel data.
//
// A data set is a Map from tag (a number, group · 65536 + element) to { vr, bytes, items }. Nothing
// of it but the elements that are read by tag leaves this file: no message quotes a value.
"use strict";

const IMPLICIT_LITTLE = "1.2.840.10008.1.2";
const EXPLICIT_LITTLE = "1.2.840.10008.1.2.1";
const DEFLATED = "1.2.840.10008.1.2.1.99";
const EXPLICIT_BIG = "1.2.840.10008.1.2.2";
const JPEG_SYNTAXES = ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"];
const RLE = "1.2.840.10008.1.2.5";
const PIXEL_DATA = 0x7fe00010;
const UNDEFINED = 0xffffffff;
const DICOM_NAMES = [".dcm", ".dicom", ".ima"];
// Value representations whose length has 32 bits where it is written.
const LONG_VRS = ["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"];

/** Whether a file is DICOM: by its content, or if that says nothing by its name. */
function looksLikeDicom(bytes, name) {
  if (startsWith(bytes, "DICM", 128)) return true;
  return DICOM_NAMES.some(each => name.toLowerCase().endsWith(each));
}

/** Reads a file: { syntax, data, little }; the data set of a deflated one is unpacked. */
async function parseDicom(bytes) {
  let at = startsWith(bytes, "DICM", 128) ? 132 : 0;
  const meta = new Map();
  at = readElements(bytes, at, { explicit: true, little: true, meta: true }, meta);
  let syntax = meta.has(0x00020010) ? dicomText(meta, 0x00020010) : guessedSyntax(bytes, at);
  let rest = bytes.subarray(at);
  if (syntax === DEFLATED) {
    // A stream of odd length is followed by a zero, which browsers refuse.
    const shorter = rest.subarray(0, rest.length - 1);
    rest = await inflate(rest, "deflate-raw").catch(() => inflate(shorter, "deflate-raw"));
    syntax = EXPLICIT_LITTLE;
  }
  const how = { explicit: syntax !== IMPLICIT_LITTLE, little: syntax !== EXPLICIT_BIG };
  const data = new Map();
  readElements(rest, 0, how, data);
  return { syntax, data, little: how.little };
}

/** The encoding of a bare data set: explicit where letters stand for a value representation. */
function guessedSyntax(bytes, at) {
  const letters = /^[A-Z]{2}$/.test(latin1(bytes.subarray(at + 4, at + 6)));
  if (!letters) return IMPLICIT_LITTLE;
  return view(bytes).getUint16(at, true) >= 0x0100 && bytes[at] === 0 ? EXPLICIT_BIG : EXPLICIT_LITTLE;
}

/**
 * Reads elements into `data` until the bytes or the enclosing item end; returns where that is.
 * `how.meta` stops after group 2.
 */
function readElements(bytes, at, how, data) {
  const numbers = view(bytes);
  while (at + 8 <= bytes.length) {
    const group = numbers.getUint16(at, how.little);
    if (how.meta && group !== 2) return at;
    const tag = group * 65536 + numbers.getUint16(at + 2, how.little);
    if (tag === 0xfffee00d || tag === 0xfffee0dd) return at + 8;
    let { vr, length, start } = elementHead(bytes, numbers, at, how);
    const element = { vr };
    if (tag === PIXEL_DATA && length === UNDEFINED) {
      Object.assign(element, readFragments(bytes, numbers, start, how.little));
      at = element.end;
    } else if (vr === "SQ" || length === UNDEFINED) {
      const inner = vr === "UN" ? { ...how, explicit: false } : how;
      [element.items, at] = readItems(bytes, numbers, start, length, inner);
    } else {
      element.bytes = bytes.subarray(start, start + length);
      element.cut = start + length > bytes.length;
      at = start + length;
    }
    data.set(tag, element);
    if (tag === PIXEL_DATA) return at;
  }
  return at;
}

function elementHead(bytes, numbers, at, how) {
  if (!how.explicit) {
    const tag = numbers.getUint16(at, how.little) * 65536 + numbers.getUint16(at + 2, how.little);
    const vr = KNOWN_VRS.get(tag) || "";
    return { vr, length: numbers.getUint32(at + 4, how.little), start: at + 8 };
  }
  const vr = latin1(bytes.subarray(at + 4, at + 6));
  if (!LONG_VRS.includes(vr)) {
    return { vr, length: numbers.getUint16(at + 6, how.little), start: at + 8 };
  }
  return { vr, length: numbers.getUint32(at + 8, how.little), start: at + 12 };
}

/** The items of a sequence and where it ends. */
function readItems(bytes, numbers, at, length, how) {
  const items = [];
  const end = length === UNDEFINED ? bytes.length : Math.min(bytes.length, at + length);
  while (at + 8 <= end) {
    const tag = numbers.getUint16(at, how.little) * 65536 + numbers.getUint16(at + 2, how.little);
    const size = numbers.getUint32(at + 4, how.little);
    at += 8;
    if (tag === 0xfffee0dd) break;
    if (tag !== 0xfffee000) throw new Unusable("cannot be decoded, it is cut or damaged (sequence)");
    const item = new Map();
    if (size === UNDEFINED) at = readElements(bytes, at, how, item);
    else {
      readElements(bytes.subarray(at, at + size), 0, how, item);
      at += size;
    }
    items.push(item);
  }
  return [items, at];
}

/** Fragments of compressed pixel data with where they lie, the offset table, and the end. */
function readFragments(bytes, numbers, at, little) {
  const fragments = [];
  let offsets = null;
  while (at + 8 <= bytes.length) {
    const element = numbers.getUint16(at + 2, little);
    const length = numbers.getUint32(at + 4, little);
    if (element === 0xe0dd) break;
    const content = bytes.subarray(at + 8, at + 8 + length);
    if (offsets === null) {
      offsets = [];
      for (let i = 0; i + 4 <= content.length; i += 4) {
        offsets.push(view(content).getUint32(i, little));
      }
      offsets.start = at + 8 + length;
    } else {
      fragments.push({ place: at - offsets.start, bytes: content });
    }
    at += 8 + length;
  }
  return { fragments, offsets, end: at + 8 };
}

/** The compressed bytes of each frame (PS3.5 A.4): by the offset table, or one fragment each. */
function compressedFrames(element, count) {
  const { fragments, offsets } = element;
  if (count === 1) return [joined(fragments.map(each => each.bytes))];
  if (offsets.length === count) {
    return offsets.map((from, i) => {
      const to = i + 1 < count ? offsets[i + 1] : Infinity;
      return joined(fragments.filter(f => f.place >= from && f.place < to).map(f => f.bytes));
    });
  }
  if (fragments.length >= count && !offsets.length) return fragments.map(each => each.bytes);
  throw new Unusable("cannot be decoded, it is damaged or of an unsupported kind, as 12-bit JPEG is");
}

// What is read, with the value representations that a file may leave out.
const KNOWN_VRS = new Map([
  [0x00280008, "IS"],
  ...[0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00280030, 0x00181164].map(t => [t, "DS"]),
  ...[0x00186018, 0x0018601a, 0x0018601c, 0x0018601e].map(t => [t, "UL"]),
  ...[0x0018602c, 0x0018602e].map(t => [t, "FD"]),
  ...[0x00186011, 0x00283000, 0x00283010, 0x52009229, 0x52009230].map(t => [t, "SQ"]),
  ...[0x00289110, 0x00289145, 0x00289132].map(t => [t, "SQ"]),
]);

/** Text of an element without padding; "" where it is missing. */
function dicomText(data, tag) {
  const element = data.get(tag);
  return element && element.bytes ? latin1(element.bytes).replace(/[\0 ]+$/, "").trim() : "";
}

/** Whole or binary numbers of an element; [] where it is missing. */
function dicomNumbers(data, tag, little) {
  const element = data.get(tag);
  if (!element || !element.bytes) return [];
  const { bytes } = element;
  const vr = element.vr === "UN" || !element.vr ? KNOWN_VRS.get(tag) || "US" : element.vr;
  if (vr === "IS") return dicomText(data, tag).split("\\").map(text => parseInt(text, 10));
  const numbers = view(bytes);
  const read = { FD: "getFloat64", UL: "getUint32", SL: "getInt32", SS: "getInt16" }[vr] || "getUint16";
  const size = { FD: 8, UL: 4, SL: 4 }[vr] || 2;
  const found = [];
  for (let i = 0; i + size <= bytes.length; i += size) found.push(numbers[read](i, little));
  return found;
}

/** Numbers of a decimal string, and whether one has a comma; words of `name` refuse other text. */
function decimals(data, tag, name) {
  const text = dicomText(data, tag);
  if (!text) return { values: [], comma: false };
  const values = text.split("\\").map(each => toNumber(each));
  if (values.some(Number.isNaN)) throw new Unusable(`has a ${name} that is not a number`);
  return { values, comma: text.includes(",") };
}

/** A decimal number, which some devices write with a comma; NaN for other text. */
function toNumber(text) {
  const plain = text.trim().replace(",", ".");
  return plain === "" ? NaN : Number(plain);
}

/** The first item of a sequence, undefined where there is none. */
function firstItem(data, tag) {
  const element = data.get(tag);
  return element && element.items ? element.items[0] : undefined;
}
