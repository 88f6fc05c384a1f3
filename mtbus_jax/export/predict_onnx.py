"""Outlines and classifies breast-ultrasound pictures with the model beside this file.

    pip install onnxruntime numpy pillow
    python predict_onnx.py --out=masks picture_1.png picture_2.png

For each picture it prints the class probabilities and writes masks/<name>_mask.png: 255 tumour,
0 background, as large as the picture. Grey, RGB and RGBA pictures of 8 bits, PNG or JPEG. A picture
that cannot be read does not stop the others; the exit code is then 2.

Research software, not a medical device.
"""

import argparse
import functools
import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

NOTICE = "Research software, not a medical device."
# As in the library: a few bytes can unpack to gigabytes.
MAX_PIXELS, MIN_SIDE, MAX_SIDE = 64_000_000, 16, 65_535
TOO_LARGE = f"has more than {MAX_PIXELS // 10**6} million pixels; scale it down"


class Model:
    """The exported network with the steps before and after it."""

    def __init__(self, folder):
        """Reads ``model.onnx`` and ``preprocessing.json``; both must come from one export."""
        import onnxruntime

        self.facts = json.loads((folder / "preprocessing.json").read_text(encoding="utf-8"))
        self.session = onnxruntime.InferenceSession(
            folder / "model.onnx", providers=["CPUExecutionProvider"]
        )
        self.size = self.facts["image_size"]["height"], self.facts["image_size"]["width"]
        self.class_names = self.facts["class_names"]
        self.enhance = enhancer(folder, self.facts)
        order = self.session.get_modelmeta().custom_metadata_map.get("class_names")
        if order != ",".join(self.class_names):
            raise ValueError(
                f"model.onnx has the classes {order}, preprocessing.json "
                f"{','.join(self.class_names)}: they are not of one export"
            )
        if list(self.session.get_inputs()[0].shape[1:3]) != list(self.size):
            raise ValueError("model.onnx and preprocessing.json differ in the image size")

    def __call__(self, grey):
        """From grey values ``(height, width)`` uint8 to a mask of that size and probabilities.

        Returns:
          ``(height, width)`` bool or None, probabilities of the classes or None, and the number of
          the class or None; refined as `mtbus predict` does it for the run.
        """
        resize = {"nearest": resize_nearest, "area": resize_area}[self.facts["resize"]]
        image = resize(self.enhance(grey), *self.size).astype(np.float32)[None, :, :, None]
        names = [output.name for output in self.session.get_outputs()]
        outputs = dict(zip(names, self.session.run(names, {"image": image}), strict=True))
        threshold = self.facts["mask_threshold"]
        mask = probability = class_id = None
        if "class_probability" in outputs:
            probability = outputs["class_probability"][0]
            class_id = int(np.argmax(probability))
        if "tumour_probability" in outputs:
            tumour = outputs["tumour_probability"][0, :, :, 0]
            mask = enlarge(tumour, *grey.shape) > threshold
            empty = not (tumour > threshold).any()
            # The class that means "no lesion"; None if there is none, or nothing is refined.
            name = self.facts.get("normal_class", "normal")
            refined = name is not None and self.facts.get("refine", True)
            normal = self.class_names.index(name) if refined else None
            if empty or (normal is not None and class_id == normal):
                mask[:] = False
            if empty and normal is not None and class_id is not None:
                class_id = normal
        return mask, probability, class_id


def enhancer(folder, facts):
    """The function that enhances a grey picture as in training, or one that changes nothing."""
    method = facts.get("enhancement", "none")
    if method == "none":
        return lambda grey: grey
    specification = importlib.util.spec_from_file_location("enhancement", folder / "enhancement.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return functools.partial(module.enhance, method=method)


def read_grey(path):
    """A picture's grey values, ``(height, width)`` uint8, by ITU-R 601 luma; alpha is ignored."""
    if not path.stat().st_size:
        raise ValueError("is empty (0 bytes)")
    try:
        file = Image.open(path)
    except UnidentifiedImageError:
        raise ValueError("is not a picture that Pillow can read") from None
    except Image.DecompressionBombError:
        raise ValueError(TOO_LARGE) from None
    with file:
        if file.width * file.height > MAX_PIXELS:
            raise ValueError(TOO_LARGE)
        if min(file.size) < MIN_SIDE or max(file.size) > MAX_SIDE:
            raise ValueError(f"has sides of less than {MIN_SIDE} or more than {MAX_SIDE} pixels")
        if any(";16" in str(tile[-1]) for tile in file.tile):
            raise ValueError("has more than 8 bits a channel; save it with 8")
        picture = ImageOps.exif_transpose(file)
        if picture.mode.startswith(("I", "F")):
            raise ValueError("has more than 8 bits a pixel; save it with 8")
        if picture.mode in ("1", "L"):
            return np.asarray(picture.convert("L"))
        rgb = np.asarray(picture.convert("RGBA"))[..., :3].astype(np.uint32)
    return ((rgb @ np.array([9797, 19234, 3737], np.uint32)) >> 15).astype(np.uint8)


def resize_nearest(array, height, width):
    """Nearest neighbour, as OpenCV does it."""
    row, col = sampled(array.shape[0], height), sampled(array.shape[1], width)
    return array[row[:, None], col[None, :]]


def resize_area(image, height, width):
    """Each pixel is the mean over the area that it covers, rounded half up."""
    rows, cols = overlaps(image.shape[0], height), overlaps(image.shape[1], width)
    total = (rows @ image.astype(np.float64) @ cols.T).astype(np.int64)  # whole numbers: exact
    return ((2 * total + image.size) // (2 * image.size)).astype(np.uint8)


def overlaps(source, target):
    """The part of each source pixel that lies in each target pixel, in units of 1/target."""
    start, pixel = np.arange(target)[:, None] * source, np.arange(source) * target
    common = np.minimum(start + source, pixel + target) - np.maximum(start, pixel)
    return np.maximum(common, 0).astype(np.float64)


def sampled(source, target):
    """Source indices: floor(index * (1 / (target size / source size))), in double precision."""
    step = 1.0 / (target / source)
    return np.minimum(np.floor(np.arange(target) * step).astype(int), source - 1)


def enlarge(probability, height, width):
    """Interpolates from network to picture size, linearly between the pixels that were sampled."""
    rows, cols = (
        _weights(*sizes) for sizes in zip(probability.shape, (height, width), strict=True)
    )
    return rows @ probability @ cols.T


def _weights(network, original):
    seen = sampled(original, network)
    if original < network:  # several network pixels saw one pixel of the picture: their mean
        hit = (seen == np.arange(original)[:, None]).astype(np.float32)
        return hit / hit.sum(axis=1, keepdims=True)
    place = np.interp(np.arange(original), seen, np.arange(network))
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(network))).astype(np.float32)


def main():
    """Does what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=NOTICE)
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the masks")
    parser.add_argument("--overwrite", action="store_true", help="replace masks that are there")
    args = parser.parse_args()
    targets = [args.out / f"{path.stem}_mask.png" for path in args.pictures]
    if len(set(targets)) < len(targets):
        parser.error("two pictures have the same name: their masks would overwrite each other")
    there = [target for target in targets if target.exists()]
    if there and not args.overwrite:
        parser.error(f"{there[0]} exists; give another --out, or --overwrite to replace it")
    try:
        model = Model(Path(__file__).resolve().parent)
        args.out.mkdir(parents=True, exist_ok=True)
    except ModuleNotFoundError as error:
        parser.error(f"{error}: pip install onnxruntime numpy pillow")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    failed = 0
    for path, target in zip(args.pictures, targets, strict=True):
        try:
            grey = read_grey(path)
        except Exception as error:  # Pillow raises nearly anything on a damaged file
            print(f"{path}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
            failed += 1
            continue
        mask, probability, class_id = model(grey)
        words = [str(path)]
        if probability is not None:
            names = model.class_names
            words += [f"{name} {p:.3f}" for name, p in zip(names, probability, strict=True)]
            words.append(f"class {names[class_id]}")
        if mask is not None:
            partial = target.with_name(f".{target.name}.partial")
            try:
                Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(partial, format="PNG")
                os.replace(partial, target)
            except OSError as error:
                parser.error(f"{target} cannot be written ({error.strerror})")
            words.append(f"tumour {mask.mean():.2%} of the picture, {target}")
        print("; ".join(words))
    print(NOTICE)
    sys.exit(2 if failed else 0)


if __name__ == "__main__":
    main()
