// Bytes: what the page holds in base64, compressed streams, checksums, numbers in a buffer.
"use strict";

/** A reason why a file cannot be used, a phrase that continues "the file …". */
class Unusable extends Error {}

const BASE64_AT_ONCE = 1 << 22; // characters, a multiple of four

/** Lets the browser draw and react before the work goes on. */
function breathe() {
  return new Promise(done => setTimeout(done, 0));
}

/** The bytes of a script element that holds base64 text; the element is emptied. */
async function embedded(name) {
  const element = document.getElementById(name);
  const text = element.textContent.trim();
  element.textContent = "";
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const bytes = new Uint8Array((text.length / 4) * 3 - padding);
  for (let at = 0, to = 0; at < text.length; at += BASE64_AT_ONCE) {
    const part = atob(text.slice(at, at + BASE64_AT_ONCE));
    for (let i = 0; i < part.length; i++) bytes[to++] = part.charCodeAt(i);
    await breathe();
  }
  return bytes;
}

/**
 * What a compressed stream unpacks to, cut off at `most` bytes.
 * `format` is "gzip", "deflate" (zlib) or "deflate-raw"; a damaged or cut stream rejects.
 */
async function inflate(bytes, format, most = Infinity) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream(format));
  const reader = stream.getReader();
  const parts = [];
  let length = 0;
  while (length < most) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    length += value.length;
  }
  reader.cancel().catch(() => {}); // what follows is not wanted, damaged or not
  const whole = new Uint8Array(Math.min(length, most));
  let at = 0;
  for (const part of parts) {
    whole.set(part.subarray(0, whole.length - at), at);
    at += part.length;
  }
  return whole;
}

/** Undoes the export's order of a model: the bytes at even places first, then those at odd ones. */
function interleaved(planes) {
  const bytes = new Uint8Array(planes.length);
  const even = Math.ceil(planes.length / 2);
  for (let i = 0; i < even; i++) bytes[2 * i] = planes[i];
  for (let i = even; i < planes.length; i++) bytes[2 * (i - even) + 1] = planes[i];
  return bytes;
}

const CRC_TABLE = new Uint32Array(256).map((_, i) => {
  let value = i;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/** CRC-32 as PNG has it (ISO 3309). */
function crc32(bytes) {
  let crc = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) crc = CRC_TABLE[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** A DataView on the same memory. */
function view(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Bytes as text, one character each. */
function latin1(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) {
    text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  }
  return text;
}

function startsWith(bytes, text, at = 0) {
  for (let i = 0; i < text.length; i++) if (bytes[at + i] !== text.charCodeAt(i)) return false;
  return bytes.length >= at + text.length;
}

/** The smallest and the largest of many numbers, [Infinity, -Infinity] of none. */
function extent(values) {
  let low = Infinity;
  let high = -Infinity;
  for (let i = 0; i < values.length; i++) {
    if (values[i] < low) low = values[i];
    if (values[i] > high) high = values[i];
  }
  return [low, high];
}

/** To the nearest whole number, halves to the even one, as NumPy's rint does. */
function rint(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}
