// Files to save: a mask as PNG, masks in a ZIP archive, the table.
"use strict";

/** A mask as a PNG file of its size: 255 lesion, 0 background. */
async function maskAsPng(mask, height, width) {
  const rows = new Uint8Array(height * (width + 1)); // each after a zero, which says "no filter"
  for (let row = 0; row < height; row++) {
    for (let col = 0; col < width; col++) {
      rows[row * (width + 1) + 1 + col] = mask[row * width + col] ? 255 : 0;
    }
  }
  const stream = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const packed = new Uint8Array(await new Response(stream).arrayBuffer());
  const header = new Uint8Array(13);
  view(header).setUint32(0, width);
  view(header).setUint32(4, height);
  header[8] = 8; // bits of grey
  const signature = Uint8Array.from(PNG_SIGNATURE, letter => letter.charCodeAt(0));
  const chunks = [pngChunk("IHDR", header), pngChunk("IDAT", packed), pngChunk("IEND", [])];
  return joined([signature, ...chunks]);
}

function pngChunk(name, content) {
  const chunk = new Uint8Array(content.length + 12);
  view(chunk).setUint32(0, content.length);
  chunk.set(new TextEncoder().encode(name), 4);
  chunk.set(content, 8);
  view(chunk).setUint32(content.length + 8, crc32(chunk.subarray(4, content.length + 8)));
  return chunk;
}

/** An archive of files given as [{ name, bytes }], stored as they are (APPNOTE 6.3, 4.3). */
function zipArchive(files) {
  const [parts, directory] = [[], []];
  let place = 0;
  for (const { name, bytes } of files) {
    const letters = new TextEncoder().encode(name);
    // Version, UTF-8 names, stored, midnight of 1 January 1980, checksum, sizes, length of the name.
    const facts = new Uint8Array(26);
    const numbers = view(facts);
    numbers.setUint16(0, 20, true);
    numbers.setUint16(2, 0x0800, true);
    numbers.setUint16(8, 0x21, true);
    numbers.setUint32(10, crc32(bytes), true);
    numbers.setUint32(14, bytes.length, true);
    numbers.setUint32(18, bytes.length, true);
    numbers.setUint16(22, letters.length, true);
    parts.push(Uint8Array.of(80, 75, 3, 4), facts, letters, bytes);
    const rest = new Uint8Array(14);
    view(rest).setUint32(10, place, true);
    directory.push(Uint8Array.of(80, 75, 1, 2, 20, 0), facts, rest, letters);
    place += 30 + letters.length + bytes.length;
  }
  const listed = joined(directory);
  const end = new Uint8Array(22);
  end.set([80, 75, 5, 6]);
  view(end).setUint16(8, files.length, true);
  view(end).setUint16(10, files.length, true);
  view(end).setUint32(12, listed.length, true);
  view(end).setUint32(16, place, true);
  return joined([...parts, listed, end]);
}

/** Lets the browser save bytes or text under a name. */
function saveFile(name, content, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name.replaceAll("/", "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
