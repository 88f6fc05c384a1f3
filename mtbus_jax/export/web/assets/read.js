// The one place where files become pictures.
"use strict";

const OTHER_KINDS = [["II*\0", "TIFF"], ["MM\0*", "TIFF"], ["BM", "BMP"], ["GIF8", "GIF"], ["RIFF", "WebP"]];

/**
 * Yields the only picture of a file, or those of a multi-frame DICOM file, as { grey, height, width,
 * notes, number, count, spacing }; `grey` are bytes row by row.
 *
 * Throws `Unusable` with the reason; its `number` is the frame from which on nothing was read.
 */
async function* readPicture(bytes, name) {
  try {
    if (!bytes.length) throw new Unusable("is empty (0 bytes)");
    if (startsWith(bytes, PNG_SIGNATURE)) yield single(await decodePng(bytes));
    else if (startsWith(bytes, JPEG_SIGNATURE)) yield single(await decodeJpeg(bytes));
    else if (looksLikeDicom(bytes, name)) yield* decodeDicom(bytes);
    else throw new Unusable(otherKind(bytes));
  } catch (error) {
    if (error instanceof Unusable) throw error;
    // A cut or damaged file raises nearly anything.
    const unusable = new Unusable("cannot be decoded, it is cut or damaged");
    unusable.number = error.number;
    throw unusable;
  }
}

function single(picture) {
  return { ...toGrey(picture, picture.orientation), number: null, count: 1, spacing: null };
}

function otherKind(bytes) {
  const found = OTHER_KINDS.find(([signature]) => startsWith(bytes, signature));
  if (!found) return "is not a PNG, JPEG or DICOM picture";
  return `is a ${found[1]} file, which this page does not read; save it as PNG`;
}
