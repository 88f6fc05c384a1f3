"""One training step of MT UNet++ with this library, as a side of train_step.py.

python our_train.py BATCH.npz [overrides of the main job]
"""

from __future__ import annotations

import functools
import sys

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import side_by_side

from mtbus_jax import losses, models, types
from mtbus_jax.runtime import backend
from mtbus_jax.training import programs, schedule, state, steps
from mtbus_jax.training.optimizer import make_optimizer


def main() -> None:
    """Prepares the step and serves it."""
    arrays = np.load(sys.argv[1])
    backend.prepare_for_training()
    module = models.create("unetpp", width=int(arrays["width"]))
    params = {k[6:]: jnp.asarray(arrays[k]) for k in arrays if k.startswith("param:")}
    params = flax.traverse_util.unflatten_dict(params, sep="/")
    optimizer = make_optimizer(b1=0.9, b2=0.999, epsilon=1e-4)
    plateau = schedule.PlateauSchedule()
    train_state = state.create({"params": params}, optimizer=optimizer, schedule=plateau)
    image = jnp.asarray(arrays["image"], jnp.float32)
    valid = jnp.ones(len(image), jnp.float32)
    batch = types.Batch(
        image, jnp.asarray(arrays["mask"], jnp.float32), jnp.asarray(arrays["label"]), valid
    )
    program = jax.jit(
        functools.partial(
            steps.train_step,
            module=module,
            optimizer=optimizer,
            schedule=plateau,
            loss=losses.LossOptions(0.85),
            key=jax.random.key(0),
        ),
        donate_argnums=0,
        compiler_options=programs.COMPILER_OPTIONS if jax.default_backend() == "cpu" else None,
    )
    loss = None

    def step():
        nonlocal train_state, loss
        train_state, sums = program(train_state, batch)
        loss = jax.block_until_ready(sums.loss)

    history = []
    for _ in range(3):
        step()
        history.append(float(loss) / len(image))
    side_by_side.serve(
        step,
        {"losses": history, "jax": jax.__version__, "device": jax.devices()[0].device_kind},
    )


if __name__ == "__main__":
    main()
