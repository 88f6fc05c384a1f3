// DICOM files: uncompressed, deflated, RLE, and JPEG of 8 bits; single and multi-frame; spacing.
"use strict";

const COLOUR_KINDS = ["RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"];
const TWO_DIMENSIONAL = 1; // values of the region calibration, PS3.3 C.8.5.5.1
const CENTIMETRES = 3;
const SAME_SPACING = 1e-3; // relative

/** Yields the frames of a file in order, as `readPicture` does. */
async function* decodeDicom(bytes) {
  const { syntax, data, little } = await parseDicom(bytes);
  const header = dicomHeader(data, little);
  const [spacing, spacingNotes] = spacingOf(header);
  const { frames, extra } = dicomFrames(header, syntax);
  const decode = index => framePixels(frames, index, header, syntax);
  let common = null;
  if (header.count > 1 && header.photometric !== "PALETTE COLOR" && !declaredBits(header)) {
    common = await commonScale(decode, header);
  }
  for (let index = 0; index < header.count; index++) {
    const number = header.count > 1 ? index + 1 : null;
    try {
      if (index >= frames.length) {
        throw new Unusable(`holds ${index} of the ${header.count} frames that it announces`);
      }
      const picture = framePicture(await decode(index), header, index, common);
      picture.notes = [...new Set([...extra, ...picture.notes, ...spacingNotes])];
      yield { ...toGrey(picture), number, count: header.count, spacing };
    } catch (error) {
      error.number = number > 1 ? number : null;
      throw error;
    }
  }
}

/** SOP classes of segmentations, of bits and of labels: masks, although they look like pictures. */
const SEGMENTATIONS = ["1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"];

/** What is needed of a data set, checked as far as decoding needs it. */
function dicomHeader(data, little) {
  const one = (tag, without) => {
    const value = dicomNumbers(data, tag, little)[0];
    return value === undefined || Number.isNaN(value) ? without : value;
  };
  if (!data.has(0x00280010) || !data.has(0x00280011)) {
    throw new Unusable("is not a DICOM file that holds a picture");
  }
  if (SEGMENTATIONS.includes(dicomText(data, 0x00080016))) {
    throw new Unusable("is a segmentation, no picture");
  }
  const header = {
    data,
    little,
    height: one(0x00280010, 0),
    width: one(0x00280011, 0),
    count: Math.max(1, one(0x00280008, 1)),
    samples: one(0x00280002, 1),
    photometric: dicomText(data, 0x00280004),
    planar: one(0x00280006, 0) === 1,
    allocated: one(0x00280100, 0),
    stored: one(0x00280101, 0),
    signed: one(0x00280103, 0) === 1,
  };
  checkSize(header.height, header.width);
  const known = ["MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", ...COLOUR_KINDS];
  if (!known.includes(header.photometric)) {
    throw new Unusable("has a photometric interpretation that is not supported");
  }
  return header;
}

/** The bytes of each frame, and a note where there are more of them than announced. */
function dicomFrames(header, syntax) {
  const element = header.data.get(PIXEL_DATA);
  if (!element) throw new Unusable("cannot be decoded, it is cut or damaged (no pixel data)");
  if (element.fragments) {
    if (syntax !== RLE && !JPEG_SYNTAXES.includes(syntax)) {
      throw new Unusable(
        "is compressed in a way that this page does not read; it reads DICOM that is " +
          "uncompressed, RLE or JPEG of 8 bits",
      );
    }
    return { frames: compressedFrames(element, header.count), extra: [] };
  }
  if (![1, 8, 16, 32].includes(header.allocated)) {
    throw new Unusable("has pixels of a size that is not supported");
  }
  const perPixel = header.photometric === "YBR_FULL_422" ? 2 : header.samples;
  const bits = header.height * header.width * perPixel * header.allocated;
  const held = Math.floor((8 * element.bytes.length) / bits);
  if (!held) throw new Unusable("cannot be decoded, it is cut or damaged (pixel data)");
  const frames = Array.from({ length: Math.min(held, header.count) }, (_, i) => {
    if (header.allocated === 1) return { bits: element.bytes, from: i * bits };
    return element.bytes.subarray((i * bits) / 8, ((i + 1) * bits) / 8);
  });
  const announced = `holds ${held} frames but announces ${header.count}, the others are left out`;
  return { frames, extra: held > header.count ? [announced] : [] };
}

/** Values of a frame, grey or with the channels of a pixel side by side, as stored. */
async function framePixels(frames, index, header, syntax) {
  const frame = frames[index];
  if (JPEG_SYNTAXES.includes(syntax)) return jpegFrame(frame, header);
  const { height, width, samples, allocated, little } = header;
  const count = height * width * samples;
  if (syntax === RLE) {
    const values = storedValues(unpackRle(frame, header), header, true);
    return rgbOfYbr(interleaveSamples(values, header, true), header);
  }
  if (allocated === 1) {
    return Uint8Array.from({ length: count }, (_, i) => {
      const bit = frame.from + i;
      return (frame.bits[bit >> 3] >> (bit & 7)) & 1;
    });
  }
  const values = storedValues(frame, header, little);
  if (header.photometric === "YBR_FULL_422") return rgbOfYbr(spreadChroma(values), header);
  return rgbOfYbr(interleaveSamples(values, header, header.planar), header);
}

/** Numbers from bytes; bits that are not used are taken away, and the sign is spread over them. */
function storedValues(bytes, { allocated, stored, signed }, little) {
  const unused = stored && stored < allocated ? 32 - stored : 0;
  if (allocated === 8 && !signed && !unused) return bytes;
  const numbers = view(bytes);
  const size = allocated / 8;
  const kind = `${signed ? "Int" : "Uint"}${allocated}`;
  const types = { Int8: Int8Array, Int16: Int16Array, Int32: Int32Array };
  Object.assign(types, { Uint8: Uint8Array, Uint16: Uint16Array, Uint32: Uint32Array });
  const values = new types[kind](Math.floor(bytes.length / size));
  for (let i = 0; i < values.length; i++) {
    const value = numbers[`get${kind}`](i * size, little);
    if (!unused) values[i] = value;
    else values[i] = signed ? (value << unused) >> unused : (value << unused) >>> unused;
  }
  return values;
}

/** The channels of a pixel side by side. */
function interleaveSamples(values, { samples, height, width }, planar) {
  if (samples === 1 || !planar) return values;
  const count = height * width;
  const whole = new values.constructor(values.length);
  for (let channel = 0; channel < samples; channel++) {
    for (let i = 0; i < count; i++) whole[i * samples + channel] = values[channel * count + i];
  }
  return whole;
}

/** Two pixels share their chroma: Y Y Cb Cr to Y Cb Cr Y Cb Cr. */
function spreadChroma(values) {
  const whole = new values.constructor((values.length / 4) * 6);
  for (let from = 0, to = 0; from + 3 < values.length; from += 4) {
    const [first, second, blue, red] = values.subarray(from, from + 4);
    for (const value of [first, blue, red, second, blue, red]) whole[to++] = value;
  }
  return whole;
}

/** YCbCr to RGB by ISO/IEC 10918-5, section 7, where the header says YBR_FULL; else as it is. */
function rgbOfYbr(values, { photometric, allocated }) {
  if (!photometric.startsWith("YBR_FULL") || allocated !== 8) return values;
  const rgb = new Uint8ClampedArray(values.length);
  for (let i = 0; i < values.length; i += 3) {
    const [luma, blue, red] = [values[i], values[i + 1] - 128, values[i + 2] - 128];
    rgb[i] = Math.floor(luma + 1.402 * red + 0.5);
    rgb[i + 1] = Math.floor(luma - ((0.114 * 1.772) / 0.587) * blue - ((0.299 * 1.402) / 0.587) * red + 0.5);
    rgb[i + 2] = Math.floor(luma + 1.772 * blue + 0.5);
  }
  return Uint8Array.from(rgb);
}

/** A frame that is a JPEG file: the header says what its colours are where it does not. */
async function jpegFrame(bytes, header) {
  const plain = jpegParts(bytes);
  const isRgb = header.photometric === "RGB" || ["RGB", "rgb"].includes(plain.named);
  const file = plain.components === 3 ? jpegParts(bytes, isRgb ? 0 : 1) : plain;
  if (file.bits !== 8) throw new Unusable("holds JPEG of 12 bits, which browsers do not read");
  const same = file.height === header.height && file.width === header.width;
  if (!same || file.components !== header.samples) {
    throw new Unusable("cannot be decoded, it is damaged (its size is unclear)");
  }
  return (await jpegPixels(file.plain, file)).values;
}

/** Unpacks run lengths (PS3.5 G), to planes of little-endian numbers. */
function unpackRle(bytes, { height, width, samples, allocated }) {
  const numbers = view(bytes);
  const size = allocated / 8;
  const count = height * width;
  const segments = numbers.getUint32(0, true);
  if (segments !== samples * size) throw new Unusable("cannot be decoded, it is damaged (segments)");
  const whole = new Uint8Array(count * samples * size);
  for (let segment = 0; segment < segments; segment++) {
    const start = numbers.getUint32(4 + 4 * segment, true);
    const end = segment + 1 < segments ? numbers.getUint32(8 + 4 * segment, true) : bytes.length;
    const plane = Math.floor(segment / size) * count * size + (size - 1 - (segment % size));
    let done = 0;
    for (let at = start; at < end && done < count; ) {
      const code = bytes[at++];
      if (code === 128) continue;
      const length = Math.min(code < 128 ? code + 1 : 257 - code, count - done);
      for (let i = 0; i < length; i++) {
        whole[plane + (done + i) * size] = bytes[code < 128 ? at + i : at];
      }
      at += code < 128 ? code + 1 : 1;
      done += length;
    }
    if (done < count) throw new Unusable("cannot be decoded, it is cut or damaged (run lengths)");
  }
  return whole;
}

/** A scale for all frames, from the values of those that can be read. */
async function commonScale(decode, header) {
  let [low, high, whole] = [Infinity, -Infinity, true];
  for (let index = 0; index < header.count; index++) {
    try {
      const pixels = await decode(index);
      const grey = header.samples === 1;
      const found = grey ? modalityValues(pixels, header, index) : { values: pixels, whole: true };
      const [least, most] = extent(found.values);
      [low, high, whole] = [Math.min(low, least), Math.max(high, most), found.whole];
    } catch {
      break; // said when the frame's turn comes
    }
  }
  return low <= high ? scaleOf(whole, low, high) : null;
}

/** A frame's values as `picture.js` wants them. */
function framePicture(pixels, header, index, common) {
  const { height, width } = header;
  if (header.photometric === "PALETTE COLOR") {
    const notes = ["palette replaced by its colours"];
    return { height, width, channels: 3, values: paletteColours(pixels, header), notes };
  }
  if (header.samples === 1) {
    const { grey, notes } = shownGrey(modalityValues(pixels, header, index), header, index, common);
    return { height, width, channels: 1, values: grey, notes };
  }
  if (pixels instanceof Uint8Array) return { height, width, channels: 3, values: pixels, notes: [] };
  const bits = declaredBits(header);
  const fits = bits && extent(pixels)[1] < 2 ** bits;
  const scale = fits ? scaleOfBits(bits) : common || ownScale({ values: pixels, whole: true });
  const notes = scale.note ? [scale.note] : [];
  return { height, width, channels: 3, values: toEightBits(pixels, scale), notes };
}

/**
 * Size of a pixel as { row, col, regions }, in mm, or null; and notes. An ultrasound picture is
 * calibrated by region (PS3.3 C.8.5.5); without any, its pixel spacing holds.
 */
function spacingOf(header) {
  const sequence = header.data.get(0x00186011);
  const regions = ((sequence && sequence.items) || [])
    .map(item => calibratedRegion(item, header.little))
    .filter(Boolean);
  if (regions.length) {
    const beyond = regions.some(({ box }) => box[2] > header.height + 1 || box[3] > header.width + 1);
    if (beyond) return [null, ["no mm: a calibrated region reaches beyond the picture, as if resized"]];
    const [{ row, col }] = regions;
    const close = (a, b) => Math.abs(a - b) <= SAME_SPACING * Math.max(a, b);
    if (!regions.every(other => close(row, other.row) && close(col, other.col))) {
      return [null, ["no mm: the picture has regions of different scale"]];
    }
    return [{ row, col, regions: regions.map(each => each.box) }, []];
  }
  const shared = firstItem(header.data, 0x52009229);
  const measures = shared && firstItem(shared, 0x00289110);
  const detector = "mm at the detector, not corrected for magnification";
  for (const [data, tag, notes] of [
    [header.data, 0x00280030, []],
    [measures, 0x00280030, []],
    [header.data, 0x00181164, [detector]],
  ]) {
    const text = data ? dicomText(data, tag) : "";
    const pair = text.split("\\").map(toNumber);
    if (pair.length === 2 && pair.every(each => Number.isFinite(each) && each > 0)) {
      const comma = text.includes(",") ? [COMMA] : [];
      return [{ row: pair[0], col: pair[1], regions: [] }, [...notes, ...comma]];
    }
  }
  return [null, ["no mm: the file gives no spacing"]];
}

/** Spacing and box (top, left, bottom, right, half open) of a calibrated plane, else null. */
function calibratedRegion(item, little) {
  const one = tag => dicomNumbers(item, tag, little)[0];
  const units = [one(0x00186024), one(0x00186026)];
  if (one(0x00186012) !== TWO_DIMENSIONAL || !units.every(unit => unit === CENTIMETRES)) return null;
  const [row, col] = [one(0x0018602e), one(0x0018602c)].map(delta => Math.abs(delta || 0) * 10);
  const [top, left, bottom, right] = [0x0018601a, 0x00186018, 0x0018601e, 0x0018601c].map(one);
  if (!(row > 0 && col > 0 && Number.isFinite(row + col)) || right === undefined || bottom === undefined) {
    return null;
  }
  return { row, col, box: [top, left, bottom + 1, right + 1] };
}
