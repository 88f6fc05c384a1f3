"""Three ways to enlarge a mask from the network's resolution to the picture's size.

    python benchmarks/enlarging.py --busi=DOWNLOADS
    python benchmarks/enlarging.py --busi=DOWNLOADS --run=runs/mt_unetpp_small --fold=0

Without a run: true masks of BUSI, resized as for training and enlarged again, compared with
themselves. With a run: a fold's masks of its test images that have a lesion, compared with the true
masks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from mtbus_jax.evaluation.evaluate import read_cases
from mtbus_jax.images.preprocess import resize_nearest
from mtbus_jax.metrics.segmentation import dice
from mtbus_jax.predict import Predictor
from mtbus_jax.predict.resample import to_original
from tfds_busi import raw


def nearest_sampled(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Each pixel of the picture takes its value from the nearest pixel that the network saw."""
    row, col = (
        np.abs(np.arange(size)[:, None] - np.arange(n) * size // n).argmin(axis=1)
        for n, size in zip(mask.shape, (height, width), strict=True)
    )
    return mask[row[:, None], col[None, :]]


WAYS = {
    "threshold, then repeat pixels": lambda p, *size: resize_nearest(p > 0.5, *size),
    "threshold, then the nearest sampled pixel": lambda p, *size: nearest_sampled(p > 0.5, *size),
    "linear interpolation, then threshold": lambda p, *size: to_original(p, *size) > 0.5,
}


def true_masks(busi: Path) -> dict[str, tuple[raw.Record, np.ndarray]]:
    """Every image of BUSI with a lesion and its mask, by uid."""
    found = {}
    for record in raw.read_busi(raw.find_busi(busi)):
        height, width = raw.decode_image(record).shape[:2]
        mask = raw.decode_mask(record, height, width).lesion
        if mask.any():
            found[record.uid] = record, mask
    return found


def print_row(name: str, values: list[float]) -> None:
    """One line of the table: the mean."""
    print(f"| {name} | {np.mean(values):.3f} |")


def round_trip(masks: list[np.ndarray], side: int) -> None:
    """Shrinks true masks and enlarges them again."""
    print(f"{len(masks)} true masks by way of {side}×{side} pixels, mean Dice with themselves")
    for name, enlarge in WAYS.items():
        values = []
        for mask in masks:
            small = resize_nearest(mask, side, side).astype(np.float32)
            values.append(dice(mask, enlarge(small, *mask.shape)))
        print_row(name, values)


def predictions(run: Path, fold: int, truth: dict[str, tuple[raw.Record, np.ndarray]]) -> None:
    """Enlarges what a fold predicts for its own test images."""
    predictor = Predictor(run, folds=[fold], tta=False, refine="none")
    rows = read_cases(run)
    uids = [uid for uid in rows.uid[rows.fold == fold] if uid in truth]
    found = [predictor([raw.decode_image(truth[uid][0])])[0].probability for uid in uids]
    print(f"{len(uids)} test images with a lesion of fold {fold} of {run}, mean Dice")
    for name, enlarge in WAYS.items():
        print_row(
            name,
            [
                dice(truth[uid][1], enlarge(each, *truth[uid][1].shape))
                for uid, each in zip(uids, found, strict=True)
            ],
        )
    print_row(
        "at the network's resolution",
        [
            dice(resize_nearest(truth[uid][1], *each.shape), each > 0.5)
            for uid, each in zip(uids, found, strict=True)
        ],
    )


def main() -> None:
    """Runs the comparison that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busi", type=Path, required=True, help="BUSI, unpacked or not")
    parser.add_argument("--run", type=Path, help="run folder of a run on curated_busi or busi")
    parser.add_argument("--fold", type=int, default=0)
    args = parser.parse_args()
    truth = true_masks(args.busi)
    if args.run:
        predictions(args.run, args.fold, truth)
    else:
        for side in (64, 128):
            round_trip([mask for _, mask in truth.values()], side)


if __name__ == "__main__":
    main()
