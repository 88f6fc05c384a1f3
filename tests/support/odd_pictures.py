"""Pictures as they come in the wild, for readers that must agree about them."""

import io
import struct
import zlib

import dicom_dummies
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 45, 70
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
           (1, 0, 2, 1))  # fmt: skip


def grey(height=HEIGHT, width=WIDTH, *, seed=0):
    """A bright disc on speckle, with black and white in it."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width]
    disc = (rows - height / 2) ** 2 + (cols - width / 3) ** 2 < (height / 5) ** 2
    pixels = (rng.integers(0, 90, (height, width)) + 140 * disc).astype(np.uint8)
    pixels[0, :2] = 0, 255
    return pixels


def colour(*, seed=1):
    tint = np.random.default_rng(seed).integers(0, 25, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    return np.minimum(grey()[..., None], 230) + tint


def png(samples, bits, colour_type, *, interlaced=False, chunks=()):
    """A PNG file of any depth; each row has another filter, of those without neighbours above.

    Args:
      samples: ``(height, width, channels)``.
      bits: of a sample.
      colour_type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA.
      interlaced: whether rows come in seven passes.
      chunks: further ones, (name, content), before the pixels.
    """
    height, width, _ = samples.shape
    packed = b""
    for row, col, row_step, col_step in _PASSES if interlaced else ((0, 0, 1, 1),):
        part = samples[row::row_step, col::col_step]
        if part.size:
            packed += b"".join(_line(line, bits, i) for i, line in enumerate(part))
    head = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, interlaced)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(packed)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in parts:
        content += struct.pack(">I", len(data)) + name + data
        content += struct.pack(">I", zlib.crc32(name + data))
    return content


def _line(line, bits, number):
    values = line.reshape(-1)
    if bits == 16:
        stored = values.astype(">u2").tobytes()
    elif bits == 8:
        stored = values.astype(np.uint8).tobytes()
    else:
        each = np.unpackbits(values.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]
        stored = np.packbits(each.reshape(-1)).tobytes()
    if number % 2:
        return b"\0" + stored
    step = max(1, bits * line.shape[-1] // 8)
    data = np.frombuffer(stored, np.uint8)
    before = np.concatenate([np.zeros(step, np.uint8), data])[: len(data)]
    return b"\1" + (data - before).tobytes()


def write_png_files(folder):
    """PNG files by Pillow, with all its filters, and by hand."""
    rng = np.random.default_rng(3)
    one, rgb = Image.fromarray(grey()), Image.fromarray(colour())
    one.save(folder / "grey.png")
    rgb.save(folder / "rgb.png")
    Image.fromarray(grey(61, 33)).save(folder / "tall.png")
    Image.fromarray(grey(16, 17)).save(folder / "tiny.png")
    Image.fromarray(grey(150, 210, seed=5)).save(folder / "large.png")
    Image.fromarray(np.repeat(grey()[..., None], 3, axis=2)).save(folder / "grey as rgb.png")
    Image.fromarray(np.full((40, 50), 7, np.uint8)).save(folder / "flat.png")
    alpha = rng.integers(0, 256, (HEIGHT, WIDTH, 1)).astype(np.uint8)
    Image.fromarray(np.concatenate([colour(), alpha], axis=2)).save(folder / "rgba.png")
    Image.fromarray(np.concatenate([grey()[..., None], alpha], axis=2)).save(folder / "la.png")
    rgb.quantize(40).save(folder / "palette.png")
    rgb.quantize(12).save(folder / "palette of 4 bits.png", bits=4, transparency=3)
    one.convert("1").save(folder / "1 bit.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    one.save(folder / "turned.png", exif=exif)
    deep = grey().astype(np.uint16)[..., None]
    files = {
        "2 bits": png(deep >> 6, 2, 0),
        "4 bits": png(deep >> 4, 4, 0),
        "4 bits, interlaced": png(deep >> 4, 4, 0, interlaced=True),
        "16 bits": png(deep * 257, 16, 0),
        "12 of 16 bits": png(deep * 16, 16, 0),
        "rgb of 16 bits": png(colour().astype(np.uint16) * 256 + 77, 16, 2),
        "rgba of 16 bits": png(np.concatenate([colour(), alpha], 2).astype(np.uint16) * 257, 16, 6),
        "interlaced": png(colour(), 8, 2, interlaced=True),
        "transparent colour": png(deep, 8, 0, chunks=[(b"tRNS", b"\0\7")]),
    }
    for name, content in files.items():
        (folder / f"{name}.png").write_bytes(content)


def write_jpeg_files(folder):
    """JPEG files, one for each orientation among them."""
    one, rgb = Image.fromarray(grey()), Image.fromarray(colour())
    one.save(folder / "grey.jpg", quality=92)
    rgb.save(folder / "rgb.jpg", quality=95, subsampling=0)
    rgb.save(folder / "subsampled.jpeg", quality=85, subsampling=2)
    rgb.save(folder / "progressive.jpg", quality=90, progressive=True)
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        one.save(folder / f"orientation {orientation}.jpg", exif=exif, quality=95)


def write_dicom_files(folder):
    """DICOM files that are uncompressed, deflated or RLE, and JPEG by name."""
    import pydicom

    write = dicom_dummies.write
    one, rng = grey(), np.random.default_rng(2)
    twelve = (one.astype(np.uint16) * 16 + 3).astype(np.uint16)
    spaced = {"PixelSpacing": [0.21, 0.13]}
    write(folder / "8 bits.dcm", one[None], **spaced)
    write(folder / "no ending", one[None], PixelSpacing=[0.5, 0.25])
    content = (folder / "no ending").read_bytes()
    (folder / "no ending").write_bytes(content.replace(b"0.5\\0.25", b"0,5\\0,25"))
    write(folder / "16 bits.dcm", (one.astype(np.uint16) * 250)[None], ImagerPixelSpacing=[1, 2])
    write(folder / "12 bits.dcm", twelve[None], BitsStored=12, HighBit=11)
    write(folder / "monochrome1.dcm", one[None], PhotometricInterpretation="MONOCHROME1")
    signed = (twelve.astype(np.int32) - 2000).astype(np.int16)
    write(folder / "signed.dcm", signed[None], BitsStored=12, HighBit=11, PixelRepresentation=1)
    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        window = {"WindowCenter": [900, 40], "WindowWidth": [1500, 9], "VOILUTFunction": function}
        scale = {"RescaleSlope": 2, "RescaleIntercept": -500}
        write(
            folder / f"{function}.dcm", twelve[None], BitsStored=12, HighBit=11, **window, **scale
        )
    write(folder / "rescaled.dcm", one[None], RescaleSlope="0.5", RescaleIntercept="3")
    write(folder / "colour.dcm", colour()[None])
    planes = np.moveaxis(colour(), -1, 0)
    write(folder / "planes.dcm", planes.reshape(1, HEIGHT, WIDTH, 3), PlanarConfiguration=1)
    ybr = np.asarray(Image.fromarray(colour()).convert("YCbCr"))
    write(folder / "ybr.dcm", ybr[None], PhotometricInterpretation="YBR_FULL")
    frames = np.stack([grey(seed=i) for i in range(11)])
    box = dicom_dummies.region((2, 3, 44, 69), 0.02, 0.03)
    write(folder / "frames.dcm", frames, SequenceOfUltrasoundRegions=pydicom.Sequence([box]))
    inner = dicom_dummies.region((20, 30, 24, 39), 0.02, 0.03)
    write(folder / "region.dcm", one[None], SequenceOfUltrasoundRegions=pydicom.Sequence([inner]))
    entries = {"PhotometricInterpretation": "PALETTE COLOR"}
    for channel in ("Red", "Green", "Blue"):
        entries[f"{channel}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        table = rng.integers(0, 2**16, 256).astype("<u2")
        entries[f"{channel}PaletteColorLookupTableData"] = table.tobytes()
    write(folder / "palette.dcm", one[None], **entries)
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [1000, 5, 10], (1023 - np.arange(1000)).tolist()
    table["LUTData"].VR = "US"
    write(folder / "tables.dcm", twelve[None] // 16, VOILUTSequence=pydicom.Sequence([table]))
    for name, syntax in {
        "implicit": pydicom.uid.ImplicitVRLittleEndian,
        "deflated": pydicom.uid.DeflatedExplicitVRLittleEndian,
    }.items():
        data = pydicom.dcmread(folder / "frames.dcm")
        data.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(folder / f"{name}.dcm", data, enforce_file_format=True)
    for name in ("frames", "planes", "12 bits"):
        data = pydicom.dcmread(folder / f"{name}.dcm")
        data.compress(pydicom.uid.RLELossless)
        data.save_as(folder / f"{name}, rle.dcm")
    for name, pixels, of in (("grey", frames, {}), ("colour", colour()[None], {
        "PhotometricInterpretation": "YBR_FULL_422"})):  # fmt: skip
        encode = dicom_dummies.pillow_encoder("JPEG", quality=95)
        syntax = pydicom.uid.JPEGBaseline8Bit
        write(folder / f"{name} jpeg.dcm", pixels, syntax=syntax, encode=encode, **of)


def write_rare_dicom_files(folder):
    """DICOM files of layouts that few devices write."""
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian

    write, one = dicom_dummies.write, grey()
    deep = one.astype(np.uint32) * 70001
    write(folder / "32 bits.dcm", np.stack([deep, deep // 2]))
    twelve = one.astype(np.uint16) * 16 + 3
    write(folder / "12 bits.dcm", twelve[None], BitsStored=12, HighBit=11)
    whole = (folder / "12 bits.dcm").read_bytes()
    (folder / "bare.dcm").write_bytes(whole[132:])
    data = pydicom.dcmread(folder / "12 bits.dcm")
    data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    data.PixelData = twelve.astype(">u2").tobytes()
    pydicom.dcmwrite(folder / "big endian.dcm", data, little_endian=False, implicit_vr=False)
    # Bits above those that are said to be stored hold something else.
    marked = twelve | 0xA000
    write(folder / "marks above.dcm", marked[None], BitsStored=12, HighBit=11)
    data = pydicom.dcmread(folder / "12 bits.dcm")
    bits = np.stack([one[:40] > 100, one[:40] > 60])  # frames of whole bytes
    data.Rows, data.NumberOfFrames = 40, 2
    data.BitsAllocated, data.BitsStored, data.HighBit = 1, 1, 0
    packed = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    data.PixelData = packed + b"\0" * (len(packed) % 2)
    pydicom.dcmwrite(folder / "1 bit.dcm", data)
    ybr = np.asarray(Image.fromarray(colour()).convert("YCbCr"))
    pairs = np.stack([ybr[:, 0::2, 0], ybr[:, 1::2, 0], ybr[:, 0::2, 1], ybr[:, 0::2, 2]], axis=-1)
    write(folder / "422.dcm", ybr[None], PhotometricInterpretation="YBR_FULL_422")
    data = pydicom.dcmread(folder / "422.dcm")
    data.PixelData = pairs.astype(np.uint8).tobytes()
    pydicom.dcmwrite(folder / "422.dcm", data)
    groups = []
    for center in (900, 2500):
        window, group = pydicom.Dataset(), pydicom.Dataset()
        window.WindowCenter, window.WindowWidth = center, 1500
        group.FrameVOILUTSequence = pydicom.Sequence([window])
        groups.append(group)
    measures, shared = pydicom.Dataset(), pydicom.Dataset()
    measures.PixelSpacing = [0.3, 0.4]
    shared.PixelMeasuresSequence = pydicom.Sequence([measures])
    write(
        folder / "groups.dcm",
        np.stack([twelve, twelve]),
        BitsStored=12,
        HighBit=11,
        PerFrameFunctionalGroupsSequence=pydicom.Sequence(groups),
        SharedFunctionalGroupsSequence=pydicom.Sequence([shared]),
    )


def write_broken_files(folder):
    """Files that cannot be used."""
    buffer = io.BytesIO()
    Image.fromarray(grey(120, 90)).save(buffer, format="PNG")
    whole = buffer.getvalue()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    damaged = bytearray(whole)
    damaged[60] ^= 0xFF
    (folder / "damaged.png").write_bytes(damaged)
    (folder / "rows missing.png").write_bytes(_rows_missing())
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    Image.fromarray(grey(12, 40)).save(folder / "too small.png")
    buffer = io.BytesIO()
    Image.fromarray(grey(120, 90)).save(buffer, format="JPEG", quality=95)
    whole = buffer.getvalue()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "cut with an end.jpg").write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    dicom_dummies.write(folder / "cut.dcm", grey()[None])
    content = (folder / "cut.dcm").read_bytes()
    (folder / "cut.dcm").write_bytes(content[: len(content) - 900])
    (folder / "no pixels.dcm").write_bytes(content[:132] + b"\x10\0\x10\0LO\4\0abcd")


def _rows_missing():
    """A file in good order whose header promises more rows than it holds."""
    content = png(grey()[..., None], 8, 0)
    head = content[12:16] + struct.pack(">II", WIDTH, HEIGHT + 9) + content[24:29]
    return content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:]
