"""Prediction of PNG files with this library, as a side of predict.py.

python our_predict.py RUN PICTURES OUT --batch=32
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
import numpy as np
import side_by_side
from PIL import Image

from mtbus_jax import images, types
from mtbus_jax.images.preprocess import resize_nearest
from mtbus_jax.predict import Prediction, Predictor
from mtbus_jax.predict.output import Output
from mtbus_jax.predict.resample import to_original
from mtbus_jax.runtime import host_memory, program_cache


def main() -> None:
    """Prepares the prediction, times its parts and serves it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--batch", type=int, required=True)
    options = parser.parse_args()
    host_memory.keep_for_prediction(options.batch)
    program_cache.open_cache()
    predictor = Predictor(
        options.run, folds=[0], tta=False, refine="none", batch_size=options.batch
    )
    sources = images.find([options.pictures]).sources

    def decode() -> Iterator[images.Frame]:
        for source in sources:
            yield from images.read(source.path)

    def write(predictions: Iterable[Prediction]) -> None:
        for source, prediction in zip(sources, predictions, strict=True):
            Image.fromarray(prediction.mask).save(options.out / f"{source.name}.png")

    def step() -> None:
        write(predictor.stream(decode()))

    step()
    frames = list(decode())
    predictions = predictor(frames)
    size = predictor.image_size

    def resize() -> None:
        np.stack([resize_nearest(frame.grey, *size) for frame in frames])

    def enlarge() -> None:
        for prediction in predictions:
            _ = to_original(prediction.probability, *prediction.frame.grey.shape) > 0.5

    settings = {"class_names": list(predictor.classes.names)}
    output = Output(options.out / "command", settings, sources)

    def command_output() -> None:
        for source, prediction in zip(sources, predictions, strict=True):
            output.write(source, prediction)

    seconds = {
        name: side_by_side.median_seconds(f)
        for name, f in {
            "decode": lambda: list(decode()),
            "resize": resize,
            "enlarge": enlarge,
        }.items()
    }
    whole = side_by_side.median_seconds(lambda: predictor(frames))
    seconds["network"] = whole - seconds["resize"] - seconds["enlarge"]
    seconds["write"] = side_by_side.median_seconds(lambda: write(predictions))
    side_by_side.serve(
        step,
        {
            "stages": seconds,
            "command_output": side_by_side.median_seconds(command_output),
            "class_probability": [p.class_probability.tolist() for p in predictions],
            "area": [int((p.probability > types.MASK_THRESHOLD).sum()) for p in predictions],
            "jax": jax.__version__,
            "device": jax.devices()[0].device_kind,
        },
    )


if __name__ == "__main__":
    main()
