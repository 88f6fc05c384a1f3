// One decoded picture: sizes that are allowed, depth to 8 bits, grey values, orientation.
//
// A decoder gives { height, width, channels, values, notes }: `values` row by row, the channels of a
// pixel side by side; 1 channel is grey, 3 are red, green and blue. Eight bits if `values` is a
// Uint8Array, else to be scaled by `toEightBits`.
"use strict";

const MAX_PIXELS = 64000000; // against a few bytes that unpack to gigabytes
const MAX_SIDE = 65535; // a line so long is no picture
const MIN_SIDE = 16; // below this an ultrasound picture shows nothing
const TURNED = "turned upright as its orientation tag says, mask and overlay too";
const BIT_DEPTHS = [8, 10, 12, 14, 16]; // of devices
const OVERSHOOT = 2; // a picture in 0..1 that was filtered exceeds 1 a little
// ITU-R 601 luma in 15-bit fixed point, cut off.
const LUMA = [9797, 19234, 3737];

/** Refuses sizes that are no picture. */
function checkSize(height, width) {
  const said = `is ${height}×${width} pixels (height×width)`;
  if (!(height * width <= MAX_PIXELS)) {
    throw new Unusable(
      `${said}, more than the ${MAX_PIXELS / 1e6} million that are allowed as a guard against ` +
        "decompression bombs; scale it down",
    );
  }
  if (Math.max(height, width) > MAX_SIDE) {
    throw new Unusable(`${said}, too long: at most ${MAX_SIDE} a side`);
  }
  if (Math.min(height, width) < MIN_SIDE) {
    throw new Unusable(`${said}, too small: at least ${MIN_SIDE}×${MIN_SIDE}`);
  }
}

/** Which values become 0 and 255 where so many bits are stored, and a note. */
function scaleOfBits(bits) {
  const note = bits === 8 ? "" : `${bits}-bit values scaled to 8 bits`;
  return { black: 0, white: 2 ** bits - 1, note };
}

/**
 * The scale of values whose depth no header tells: of whole numbers from 0 the smallest depth that
 * holds them; of others that lie in 0..255, 0..1 or a little above it to 255; else their extent.
 */
function scaleOf(whole, low, high) {
  if (whole && low >= 0 && high < 2 ** 16) return scaleOfBits(BIT_DEPTHS.find(b => high < 2 ** b));
  if (!whole && low >= 0 && high <= 255) {
    const white = high > OVERSHOOT ? 255 : Math.max(1, high);
    const shown = String(Number(white.toPrecision(4)));
    return { black: 0, white, note: `floating-point values 0 to ${shown} scaled to 8 bits` };
  }
  return { black: low, white: high, note: "smallest to largest value scaled to 8 bits" };
}

/** Values as bytes by a scale. */
function toEightBits(values, scale) {
  const span = scale.white - scale.black;
  const factor = span > 0 ? 255 / span : 0;
  const bytes = new Uint8Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const value = rint((values[i] - scale.black) * factor);
    bytes[i] = value < 0 ? 0 : value > 255 ? 255 : value;
  }
  return bytes;
}

/** A picture of one or three channels as { grey, height, width, notes }, upright. */
function toGrey(picture, orientation = 1) {
  const { channels, values } = picture;
  const notes = [...picture.notes];
  const count = picture.height * picture.width;
  const grey = new Uint8Array(count);
  let coloured = false;
  for (let i = 0, at = 0; i < count; i++, at += channels) {
    const red = values[at];
    if (channels === 1 || (red === values[at + 1] && red === values[at + 2])) {
      grey[i] = red; // luma leaves channels that are equal as they are
    } else {
      coloured = true;
      grey[i] = (LUMA[0] * red + LUMA[1] * values[at + 1] + LUMA[2] * values[at + 2]) >> 15;
    }
  }
  if (coloured) notes.push("colour turned to grey");
  const [low, high] = extent(grey);
  if (low === high) notes.push("all pixels have one value");
  const upright = turned(grey, picture.height, picture.width, orientation);
  if (orientation > 1) notes.unshift(TURNED);
  return { ...upright, notes };
}

/** Grey values as an orientation tag of 1 to 8 wants them shown (TIFF 6.0, page 36). */
function turned(grey, height, width, orientation) {
  if (orientation === 1) return { grey, height, width };
  const swapped = orientation > 4;
  const rows = swapped ? width : height;
  const cols = swapped ? height : width;
  const shown = new Uint8Array(grey.length);
  const flipRows = [3, 4, 7, 8].includes(orientation);
  const flipCols = [2, 3, 6, 7].includes(orientation);
  for (let row = 0, i = 0; row < rows; row++) {
    const fromRow = flipRows ? rows - 1 - row : row;
    for (let col = 0; col < cols; col++, i++) {
      const fromCol = flipCols ? cols - 1 - col : col;
      shown[i] = swapped ? grey[fromCol * width + fromRow] : grey[fromRow * width + fromCol];
    }
  }
  return { grey: shown, height: rows, width: cols };
}

/** The orientation in a TIFF structure as EXIF has it, 0 where there is none that can be read. */
function orientationInTiff(bytes) {
  const little = startsWith(bytes, "II");
  if (bytes.length < 14 || !(little || startsWith(bytes, "MM"))) return 0;
  const data = view(bytes);
  const start = data.getUint32(4, little);
  if (start + 2 > bytes.length) return 0;
  for (let i = 0, at = start + 2; i < data.getUint16(start, little); i++, at += 12) {
    if (at + 12 > bytes.length) return 0;
    if (data.getUint16(at, little) !== 0x0112) continue;
    const wide = data.getUint16(at + 2, little) === 4;
    return wide ? data.getUint32(at + 8, little) : data.getUint16(at + 8, little);
  }
  return 0;
}

/** The orientation in an XMP packet, 0 where there is none. */
function orientationInXmp(text) {
  const found = /tiff:Orientation(?:="|>)([0-9])/.exec(text);
  return found ? Number(found[1]) : 0;
}

/** A value of the tag that turns a picture, 1 for any other. */
function usableOrientation(value) {
  return value >= 2 && value <= 8 ? value : 1;
}
