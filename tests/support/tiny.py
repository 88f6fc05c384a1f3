"""A network and a dataset that train in moments, for tests of everything around the network."""

import contextlib

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from configs import base
from mtbus_jax import data, types
from mtbus_jax.splits import published_folds
from mtbus_jax.training import device_data
from mtbus_jax.training.evaluator import Evaluator
from mtbus_jax.training.experiment import Experiment
from mtbus_jax.training.fold import FoldLoop, FoldRun, train_folds
from mtbus_jax.training.logbook import Logbook

HEIGHT, WIDTH = 16, 32


class TinyNet(nn.Module):
    """One convolution, two maps, a pooled class; options as the real networks have them."""

    tasks: tuple[str, ...] = types.TASKS
    width: int = 4
    classes: int = 3

    depth = 4  # as for a real network: input sides must be multiples of 2 ** depth

    @nn.compact
    def __call__(self, image, *, train=False):
        features = nn.relu(nn.Conv(self.width, (5, 5), name="conv")(image / 255))
        segmentation, class_logits = (), None
        if "seg" in self.tasks:
            fine = nn.Conv(1, (1, 1), name="fine")(features)
            coarse = nn.Conv(1, (1, 1), name="coarse")(jnp.tanh(features))
            segmentation = (fine, coarse)
        if "cls" in self.tasks:
            class_logits = nn.Dense(self.classes, name="cls")(features.mean((1, 2)))
        return types.Outputs(segmentation, class_logits, {})


def make_cases(count: int = 48, *, seed: int = 0) -> types.Cases:
    """Bright boxes on noise: wide benign, tall malignant, none normal; four test folds."""
    rng = np.random.default_rng(seed)
    label = np.sort(np.arange(count) % 3).astype(np.int32)
    image = rng.integers(0, 80, (count, HEIGHT, WIDTH, 1)).astype(np.uint8)
    mask = np.zeros_like(image)
    for i, code in enumerate(label):
        row, col = rng.integers(1, 5), rng.integers(2, 18)
        if code == types.BENIGN:
            mask[i, row : row + 4, col : col + 12] = 1
        elif code == types.MALIGNANT:
            mask[i, row : row + 10, col : col + 5] = 1
    image[mask > 0] += 150
    uid = np.array([f"{types.CLASS_NAMES[c]}_{i}" for i, c in enumerate(label)])
    return types.Cases(
        name="phantom",
        uid=uid,
        image=image,
        mask=mask,
        label=label,
        original_size=np.full((count, 2), 100, np.int32),
        group=uid.copy(),
        test_fold=(np.arange(count) % 4).astype(np.int32),
    )


def make_config(**train):
    """A configuration for the above; ``train`` overrides fields of ``config.train``."""
    config = base.get_config()
    config.name = "tiny"
    config.data.name = "phantom"
    config.data.folds = (0,)
    config.data.image_size = (HEIGHT, WIDTH)
    config.model = {"name": "tiny", "width": 4}
    config.log.progress = False
    config.train.update(
        {"epochs": 3, "batch_size": 5, "learning_rate": 1e-2, "checkpoint_seconds": 0.0} | train
    )
    return config


def train_one(config, directory, cases=None, fold=0):
    """Trains a fold into ``directory``; returns what its checkpoints must come from."""
    cases = cases or make_cases()
    split = published_folds(cases.label, cases.test_fold)[fold]
    origin = {"dataset": data.fingerprint(cases), "split": split.fingerprint(cases.uid)}
    experiment = Experiment.from_config(config)
    run = FoldRun(experiment, cases, split, fold=fold, directory=directory, origin=origin)
    list(train_folds(make_loop(experiment, cases), [run]))
    return origin


def make_loop(experiment, cases):
    """The device programs of training on these images."""
    placed = device_data.place(cases, experiment.devices)
    return FoldLoop(experiment, placed, Evaluator(experiment, placed))


def without_times(rows):
    """Lines of metrics.jsonl without the seconds that an epoch took."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@contextlib.contextmanager
def killed_after(epoch: int):
    """The training in the block dies once the line of an epoch is written, before its checkpoint.

    As by SIGKILL: no handler of the library runs. Fails if the training does not come that far.
    """
    import pytest  # not for the programs that tests start

    class Killed(BaseException):
        pass

    write = Logbook.write

    def write_then_die(self, row):
        write(self, row)
        if row["epoch"] == epoch:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Logbook, "write", write_then_die)
        with pytest.raises(Killed):
            yield
