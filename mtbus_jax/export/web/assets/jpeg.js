// JPEG files through the browser's own decoder, without what would make it turn or tint the picture.
"use strict";

const JPEG_SIGNATURE = "\xff\xd8\xff";
const JPEG_BLOCK = 8; // side of what is coded together
// Entropy-coded bytes that a decoder which still waits for data turns into something to be seen.
const MORE_JPEG = Uint8Array.from({ length: 16 * 256 }, (_, i) => {
  const place = i % 256;
  if (place < 254) return place + 1;
  return place === 254 ? 0xff : 0xd0 + ((i >> 8) % 8);
});

/** Decodes a file to what `picture.js` describes, with its `orientation`. */
async function decodeJpeg(bytes) {
  const file = jpegParts(bytes);
  checkSize(file.height, file.width);
  if (file.components !== 1 && file.components !== 3) {
    throw new Unusable("is a JPEG file in CMYK, which this page does not read; save it as RGB or PNG");
  }
  if (file.end < 0) throw new Unusable("cannot be decoded, it is cut or damaged (no end)");
  const found = await jpegPixels(file.plain, file);
  if (lastBlockIsFlat(found) && !(await jpegIsComplete(file, found))) {
    throw new Unusable("is cut: rows are missing at the end of the picture");
  }
  const orientation = usableOrientation(file.orientation || orientationInXmp(file.xmp));
  return { ...found, orientation };
}

/**
 * Size and orientation of a file, and `plain`, the file without metadata: a browser would turn the
 * picture by EXIF and change its values by a colour profile. `end` is where its last marker lies.
 * `adobe` (0 or 1) says instead of the file whether colours are RGB or YCbCr; null leaves it so.
 */
function jpegParts(bytes, adobe = null) {
  const file = { orientation: 0, xmp: "", height: 0, width: 0, components: 0, bits: 8 };
  const kept = [bytes.subarray(0, 2)];
  let hasAdobe = false;
  let at = 2;
  while (at + 4 <= bytes.length) {
    if (bytes[at] !== 0xff) throw new Unusable("cannot be decoded, it is cut or damaged (marker)");
    const marker = bytes[at + 1];
    if (marker === 0xff) {
      at++; // fill bytes
      continue;
    }
    const length = (bytes[at + 2] << 8) | bytes[at + 3];
    const content = bytes.subarray(at + 4, at + 2 + length);
    if (marker === 0xe1) readApp1(content, file);
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      file.bits = content[0];
      file.height = (content[1] << 8) | content[2];
      file.width = (content[3] << 8) | content[4];
      file.components = content[5];
      file.named = latin1(content.filter((_, i) => i >= 6 && i % 3 === 0));
    }
    hasAdobe ||= marker === 0xee && startsWith(content, "Adobe");
    const metadata = (marker >= 0xe1 && marker <= 0xef && marker !== 0xee) || marker === 0xfe;
    if (!metadata) kept.push(bytes.subarray(at, at + 2 + length));
    at += 2 + length;
    if (marker === 0xda) break;
  }
  if (!file.components) throw new Unusable("cannot be decoded, it is cut or damaged (no header)");
  if (adobe !== null && !hasAdobe) {
    const words = [0xff, 0xee, 0, 14, 65, 100, 111, 98, 101, 0, 100, 0, 0, 0, 0, adobe];
    kept.splice(1, 0, Uint8Array.from(words));
  }
  kept.push(bytes.subarray(at));
  file.plain = joined(kept);
  file.end = file.plain.length - 2;
  while (file.end >= 0 && !(file.plain[file.end] === 0xff && file.plain[file.end + 1] === 0xd9)) {
    file.end--;
  }
  return file;
}

function readApp1(content, file) {
  if (startsWith(content, "Exif\0\0")) file.orientation = orientationInTiff(content.subarray(6));
  if (startsWith(content, "http://ns.adobe.com/xap/1.0/\0")) file.xmp += latin1(content);
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

/** What the browser's decoder gives, as grey or colour. */
async function jpegPixels(bytes, { height, width, components, bits }) {
  let image;
  try {
    image = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }), {
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch {
    const kind = bits > 8 ? `of a kind that browsers do not read (${bits} bits)` : "cut or damaged";
    throw new Unusable(`cannot be decoded, it is ${kind}`);
  }
  if (image.width !== width || image.height !== height) {
    throw new Unusable("cannot be decoded, it is damaged (its size is unclear)");
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  context.drawImage(image, 0, 0);
  image.close();
  const pixels = context.getImageData(0, 0, width, height).data;
  // A JPEG picture is opaque; a canvas larger than the browser allows stays empty without a word.
  if (pixels[pixels.length - 1] !== 255) {
    throw new Unusable("is a JPEG picture larger than this browser can decode; scale it down");
  }
  const values = new Uint8Array(height * width * components);
  for (let i = 0, to = 0; i < pixels.length; i += 4) {
    for (let channel = 0; channel < components; channel++) values[to++] = pixels[i + channel];
  }
  return { height, width, channels: components, values, notes: [] };
}

/** Whether the last block has one value, as blocks have that are missing. */
function lastBlockIsFlat({ height, width, channels, values }) {
  const firstRow = height - (height % JPEG_BLOCK || JPEG_BLOCK);
  const firstCol = width - (width % JPEG_BLOCK || JPEG_BLOCK);
  const corner = (firstRow * width + firstCol) * channels;
  for (let row = firstRow; row < height; row++) {
    for (let col = firstCol; col < width; col++) {
      for (let channel = 0; channel < channels; channel++) {
        const value = values[(row * width + col) * channels + channel];
        if (value !== values[corner + channel]) return false;
      }
    }
  }
  return true;
}

/** Decodes a file again with more data at its end, which a complete picture has no use for. */
async function jpegIsComplete(file, found) {
  const longer = joined([file.plain.subarray(0, file.end), MORE_JPEG, file.plain.subarray(file.end)]);
  const again = await jpegPixels(longer, file);
  return again.values.every((value, i) => value === found.values[i]);
}
