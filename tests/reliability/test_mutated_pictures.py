"""Damaged pictures of every kind that is read: nothing but a `ReadError`, and no process dies."""

import io
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEIGHT, WIDTH = 40, 56
PATIENCE = 3600  # seconds
_DICOM = {
    "dcm": None,
    "rle": "1.2.840.10008.1.2.5",
    "dcm_jpeg": "1.2.840.10008.1.2.4.50",
    "dcm_jpeg2000": "1.2.840.10008.1.2.4.90",
    "dcm_deflated": "1.2.840.10008.1.2.1.99",
}
_PILLOW = {
    "png": ("PNG", {}),
    "jpeg": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
    "webp": ("WEBP", {}),
    "webp_lossless": ("WEBP", {"lossless": True}),
    "tiff": ("TIFF", {}),
    "tiff_lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff_jpeg": ("TIFF", {"compression": "jpeg"}),
    "tiff_deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
}
KINDS = (*_PILLOW, "tiff_16", *_DICOM)

# In a process of its own: what it says last tells which file it died of.
READER = """
import pathlib, random, sys
from mtbus_jax import images

whole, count = pathlib.Path(sys.argv[1]).read_bytes(), int(sys.argv[2])
path = pathlib.Path(sys.argv[1] + "_mutated")
read = 0
for seed in range(count):
    rng, content = random.Random(seed), bytearray(whole)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(content))
        content[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    if rng.random() < 0.2:
        del content[rng.randrange(len(content)):]
    path.write_bytes(content)
    print(seed, flush=True)
    try:
        for frame in images.read(path):
            assert frame.grey.dtype == "uint8" and frame.grey.ndim == 2
        read += 1
    except images.ReadError:
        pass
print("whole", read)
"""


def write(kind, path):
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    grey = ((rows * 5 + cols * 3) % 256).astype(np.uint8)
    if kind in _PILLOW:
        name, options = _PILLOW[kind]
        Image.fromarray(grey).save(path, name, **options)
    elif kind == "tiff_16":
        tifffile.imwrite(path, grey.astype(np.uint16) * 200, compression="zlib")
    else:
        pytest.importorskip("pydicom", reason="NOT TESTED without mtbus_jax[dicom]")
        _write_dicom(kind, path, grey)


def _write_dicom(kind, path, grey):
    import dicom_dummies
    import pydicom

    def with_pillow(name, **options):
        def encode(frame):
            buffer = io.BytesIO()
            Image.fromarray(frame).save(buffer, name, **options)
            return buffer.getvalue()

        return encode

    encode = {
        "dcm_jpeg": with_pillow("JPEG"),
        "dcm_jpeg2000": with_pillow("JPEG2000", no_jp2=True, irreversible=False),
    }.get(kind)
    if kind == "rle":
        dicom_dummies.write(path, grey[None])
        data = pydicom.dcmread(path)
        data.compress(_DICOM[kind])
        data.save_as(path)
        return
    dicom_dummies.write(path, grey[None], syntax=_DICOM[kind], encode=encode)


def read_mutated(kind, folder, count):
    path = folder / kind
    write(kind, path)
    done = subprocess.run(
        [sys.executable, "-c", READER, str(path), str(count)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    *seeds, last = done.stdout.splitlines()
    assert done.returncode == 0, (kind, "seed", seeds[-1:], last, done.stderr[-2000:])
    assert len(seeds) == count
    assert last.startswith("whole ")


@pytest.mark.parametrize("kind", ["webp", "tiff_jpeg", "dcm_jpeg2000"])
def test_a_few(kind, tmp_path):
    read_mutated(kind, tmp_path, 40)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand(kind, tmp_path):
    read_mutated(kind, tmp_path, 1000)
