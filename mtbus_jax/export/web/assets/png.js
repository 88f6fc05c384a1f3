// PNG files (W3C PNG, third edition), unpacked here so that every byte is what the file holds: a
// canvas mixes in transparency and cuts 16 bits.
"use strict";

const PNG_SIGNATURE = "\x89PNG\r\n\x1a\n";
// ImageMagick's way to keep EXIF: hexadecimal digits in a text, after two lines.
const MOST_TEXT = 1 << 20;
const RAW_EXIF = "Raw profile type exif\0";
const PNG_CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };
const PNG_DEPTHS = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] };
// First row and column, and steps between rows and columns, of the passes of an interlaced file.
const PNG_PASSES = [
  [0, 0, 8, 8], [0, 4, 8, 8], [4, 0, 8, 4], [0, 2, 4, 4], [2, 0, 4, 2], [0, 1, 2, 2], [1, 0, 2, 1],
];

/** Decodes a file to what `picture.js` describes, with its `orientation`. */
async function decodePng(bytes) {
  const file = pngChunks(bytes);
  const { height, width, bits, colour } = file.header;
  const channels = PNG_CHANNELS[colour];
  const passes = (file.header.interlaced ? PNG_PASSES : [[0, 0, 1, 1]])
    .map(([row, col, rowStep, colStep]) => ({
      row, col, rowStep, colStep,
      rows: Math.max(0, Math.ceil((height - row) / rowStep)),
      cols: Math.max(0, Math.ceil((width - col) / colStep)),
    }))
    .filter(each => each.rows && each.cols);
  const lineBytes = each => Math.ceil((each.cols * channels * bits) / 8);
  const expected = passes.reduce((sum, each) => sum + each.rows * (1 + lineBytes(each)), 0);
  const packed = await inflate(file.data, "deflate", expected);
  if (packed.length < expected) {
    throw new Unusable("is cut: rows are missing at the end of the picture");
  }
  const samples = new (bits === 16 ? Uint16Array : Uint8Array)(height * width * channels);
  let at = 0;
  for (const each of passes) {
    const length = lineBytes(each);
    unfilter(packed, at, each.rows, length, Math.max(1, (channels * bits) >> 3));
    for (let i = 0; i < each.rows; i++) {
      const line = packed.subarray(at + 1, at + 1 + length);
      placeLine(samples, line, bits, channels, each, (each.row + i * each.rowStep) * width);
      at += 1 + length;
    }
  }
  const found = pngPicture(samples, file);
  const inText = file.orientation ? 0 : await orientationInText(file);
  const orientation = usableOrientation(file.orientation || inText || orientationInXmp(file.xmp));
  return { height, width, ...found, orientation };
}

/** The orientation in EXIF that is kept as text; 0 without, or if it is damaged. */
async function orientationInText({ exif, packedExif }) {
  try {
    const text = latin1(exif || (packedExif ? await inflate(packedExif, "deflate", MOST_TEXT) : []));
    const digits = text.split("\n").slice(3).join("").replace(/\s/g, "");
    const bytes = Uint8Array.from(digits.match(/../g) || [], pair => parseInt(pair, 16));
    return orientationInTiff(startsWith(bytes, "Exif\0\0") ? bytes.subarray(6) : bytes);
  } catch {
    return 0;
  }
}

/** Header, palette, transparency, orientation and the compressed data of a file. */
function pngChunks(bytes) {
  const data = view(bytes);
  const file = { orientation: 0, xmp: "", frames: 1 };
  const parts = [];
  let ended = false;
  for (let at = 8; at + 8 <= bytes.length && !ended; ) {
    const length = data.getUint32(at);
    const name = latin1(bytes.subarray(at + 4, at + 8));
    const content = bytes.subarray(at + 8, at + 8 + length);
    const whole = at + 12 + length <= bytes.length;
    const critical = name.charCodeAt(0) < 97;
    if (critical && whole && crc32(bytes.subarray(at + 4, at + 8 + length)) !== data.getUint32(at + 8 + length)) {
      throw new Unusable(`cannot be decoded, it is cut or damaged (broken ${name} chunk)`);
    }
    if (critical && !whole && name !== "IDAT") {
      throw new Unusable(`cannot be decoded, it is cut or damaged (cut ${name} chunk)`);
    }
    if (name === "IHDR") file.header = pngHeader(content);
    else if (name === "PLTE") file.palette = content;
    else if (name === "tRNS") file.transparency = content;
    else if (name === "IDAT") parts.push(content);
    else if (name === "eXIf") file.orientation = orientationInTiff(content);
    else if (name === "iTXt" && startsWith(content, "XML:com.adobe.xmp\0")) file.xmp = latin1(content);
    else if (name === "tEXt" && startsWith(content, RAW_EXIF)) file.exif = content.subarray(RAW_EXIF.length);
    else if (name === "zTXt" && startsWith(content, RAW_EXIF)) file.packedExif = content.subarray(RAW_EXIF.length + 1);
    else if (name === "acTL" && whole) file.frames = view(content).getUint32(0);
    else if (name === "IEND") ended = true;
    at += 12 + length;
  }
  if (!file.header || !parts.length) {
    throw new Unusable("cannot be decoded, it is cut or damaged (no picture in the file)");
  }
  file.data = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (file.data.set(part, at), at + part.length), 0);
  return file;
}

function pngHeader(content) {
  if (content.length < 13) throw new Unusable("cannot be decoded, it is cut or damaged (header)");
  const data = view(content);
  const header = {
    width: data.getUint32(0),
    height: data.getUint32(4),
    bits: content[8],
    colour: content[9],
    interlaced: content[12] === 1,
  };
  checkSize(header.height, header.width);
  if (!(PNG_DEPTHS[header.colour] || []).includes(header.bits) || content[12] > 1) {
    throw new Unusable("is a PNG file of a kind that does not exist");
  }
  return header;
}

/** Undoes the filters of the rows of one pass, in place (PNG, section 9). */
function unfilter(bytes, start, rows, length, step) {
  for (let row = 0, at = start + 1; row < rows; row++, at += length + 1) {
    const type = bytes[at - 1];
    const above = at - length - 1;
    for (let i = 0; i < length; i++) {
      const left = i >= step ? bytes[at + i - step] : 0;
      const up = row ? bytes[above + i] : 0;
      let add = 0;
      if (type === 1) add = left;
      else if (type === 2) add = up;
      else if (type === 3) add = (left + up) >> 1;
      else if (type === 4) add = paeth(left, up, row && i >= step ? bytes[above + i - step] : 0);
      else if (type !== 0) throw new Unusable("cannot be decoded, it is cut or damaged (filter)");
      bytes[at + i] += add;
    }
  }
}

function paeth(left, up, corner) {
  const guess = left + up - corner;
  const distances = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
  if (distances[0] <= distances[1] && distances[0] <= distances[2]) return left;
  return distances[1] <= distances[2] ? up : corner;
}

/** Puts the samples of a line of a pass where they belong in the picture. */
function placeLine(samples, line, bits, channels, pass, rowStart) {
  const most = (1 << bits) - 1;
  for (let i = 0, sample = 0; i < pass.cols; i++) {
    let to = (rowStart + pass.col + i * pass.colStep) * channels;
    for (let channel = 0; channel < channels; channel++, sample++, to++) {
      if (bits === 8) samples[to] = line[sample];
      else if (bits === 16) samples[to] = (line[2 * sample] << 8) | line[2 * sample + 1];
      else {
        const bit = sample * bits;
        samples[to] = (line[bit >> 3] >> (8 - bits - (bit & 7))) & most;
      }
    }
  }
}

/** From samples to grey or colour without transparency, and notes. */
function pngPicture(samples, file) {
  const { bits, colour } = file.header;
  const notes = [];
  if (file.frames > 1) notes.push(`first of ${file.frames} pictures in the file`);
  if (colour === 3) return palettePicture(samples, file, notes);
  if (colour === 0) {
    if (bits < 8) samples = samples.map(value => (value * 255) / ((1 << bits) - 1));
    if (bits < 16) return { channels: 1, values: samples, notes };
    const scale = scaleOf(true, ...extent(samples));
    if (scale.note) notes.push(scale.note);
    return { channels: 1, values: toEightBits(samples, scale), notes };
  }
  if (bits === 16) {
    samples = Uint8Array.from(samples, value => value >> 8);
    notes.push("16-bit channels cut to 8 bits");
  }
  if (colour === 2) return { channels: 3, values: samples, notes };
  const channels = PNG_CHANNELS[colour] - 1;
  const values = new Uint8Array((samples.length / (channels + 1)) * channels);
  let [low, high] = [255, 0];
  for (let from = 0, to = 0; from < samples.length; from++) {
    for (let i = 0; i < channels; i++) values[to++] = samples[from++];
    low = Math.min(low, samples[from]);
    high = Math.max(high, samples[from]);
  }
  if (low !== high) notes.push("transparency ignored");
  return { channels, values, notes };
}

function palettePicture(samples, file, notes) {
  if (!file.palette) throw new Unusable("cannot be decoded, it is cut or damaged (no palette)");
  const values = new Uint8Array(3 * samples.length);
  const alphas = new Set();
  for (let i = 0; i < samples.length; i++) {
    for (let j = 0; j < 3; j++) values[3 * i + j] = file.palette[3 * samples[i] + j] || 0;
    const alpha = file.transparency ? file.transparency[samples[i]] : 255;
    alphas.add(alpha === undefined ? 255 : alpha);
  }
  notes.push("palette replaced by its colours");
  if (alphas.size > 1) notes.push("transparency ignored");
  return { channels: 3, values, notes };
}
