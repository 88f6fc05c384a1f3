"""Predicts and writes the same pictures again and again, until somebody ends it.

    python predict_endlessly.py RUN OUT FILE…
"""  # fmt: skip

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]


def frames(paths):
    from mtbus_jax import images

    while True:
        for path in paths:
            yield from images.read(path)


if __name__ == "__main__":
    import tiny

    from mtbus_jax import images, models
    from mtbus_jax.predict import Predictor
    from mtbus_jax.predict.output import Output

    models.REGISTRY["tiny"] = tiny.TinyNet
    run, out, *paths = map(pathlib.Path, sys.argv[1:])
    predictor = Predictor(run)
    sources = [images.Source(path, path.name, path.stem) for path in paths]
    settings = {"class_names": predictor.classes.names}
    output = Output(out, settings, sources, probabilities="npy")
    for count, prediction in enumerate(predictor.stream(frames(paths))):
        output.write(sources[count % len(sources)], prediction)
