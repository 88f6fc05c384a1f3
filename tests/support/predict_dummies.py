"""Run folders of a tiny network and pictures for it, written without any training."""

import dataclasses

import jax
import numpy as np
import scipy.special
import tiny

from mtbus_jax import augment, files, types
from mtbus_jax.evaluation import trust
from mtbus_jax.images.preprocess import resize_nearest
from mtbus_jax.training import run_folder
from mtbus_jax.training.checkpoint import Checkpoints
from mtbus_jax.training.experiment import Experiment

SIZE = (tiny.HEIGHT, tiny.WIDTH)


def write_run(workdir, *, folds=(0, 1), size=SIZE, tasks=types.TASKS):
    """A run folder with nothing but the configuration and the best weights.

    Returns:
      The configuration and the variables of each fold.
    """
    config = tiny.make_config()
    config.tasks = tasks
    config.data.image_size = size
    config.eval.tta = False
    files.write_json(made(workdir) / run_folder.CONFIG, config.to_dict())
    setup = Experiment.from_config(config)
    variables = {}
    for fold in folds:
        state = setup.init_state(fold)
        # Larger weights than those drawn: probabilities on both sides of one half.
        params = jax.tree.map(lambda leaf: 3 * leaf, state.params)
        plateau = state.plateau._replace(best_epoch=np.int32(1))
        state = state.replace(best_params=params, plateau=plateau, epoch=np.int32(1))
        with Checkpoints(run_folder.fold_dir(workdir, fold) / "checkpoints", {"a": "b"}) as kept:
            kept.save(state, 1)
        variables[fold] = jax.device_get(state.best_variables)
    return config, variables


def write_small_run(workdir):
    """A run of a small network of the library, for processes that do not know `tiny`."""
    config = tiny.make_config()
    config.data.image_size = (32, 48)
    config.model = {"name": "unet", "width": 2}
    config.eval.tta = False
    files.write_json(made(workdir) / run_folder.CONFIG, config.to_dict())
    state = Experiment.from_config(config).init_state(0)
    state = state.replace(plateau=state.plateau._replace(best_epoch=np.int32(1)))
    with Checkpoints(workdir / "fold_0" / "checkpoints", {}) as kept:
        kept.save(state, 1)


def made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_trust(workdir, folds, **changes):
    """A ``trust.json`` of invented numbers."""
    logistic = trust.Logistic(-1.0, (1.0,) * len(trust.Doubt._fields))
    fitted = trust.FoldTrust(
        temperature=2.0,
        conformal_threshold=0.25,
        presence=trust.Presence(trust.Logistic(0.3, (0.5, 0.7)), 0.8),
        class_error=logistic,
        mask_error=logistic,
        warning_threshold=0.3,
        validation_images=9,
    )
    values = dataclasses.asdict(dataclasses.replace(fitted, **changes))
    content = {"folds": {str(fold): values for fold in folds}}
    files.write_json(workdir / trust.TRUST, content)


def pictures():
    """Pictures of several sizes with a bright disc."""
    rng = np.random.default_rng(0)
    drawn = []
    for height, width in ((40, 90), (64, 50), (33, 71)):
        rows, cols = np.mgrid[:height, :width]
        disc = (rows - height / 2) ** 2 + (cols - width / 3) ** 2 < 100
        drawn.append((rng.integers(0, 90, (height, width)) + 140 * disc).astype(np.uint8))
    return drawn


def by_hand(picture, variables, numbers=(0,)):
    """Tumour probabilities and class logits of each member, straight from the network."""
    module = tiny.TinyNet()
    small = resize_nearest(picture, *SIZE)[None, ..., None].astype(np.float32)
    maps, logits = [], []
    for each in variables.values():
        for number in numbers:
            outputs = module.apply(each, augment.symmetry(small, number), train=False)
            back = augment.undo_symmetry(np.asarray(outputs.segmentation[0]), number)
            maps.append(scipy.special.expit(back[0, ..., 0]))
            logits.append(np.asarray(outputs.class_logits[0]))
    return np.stack(maps), np.stack(logits)
