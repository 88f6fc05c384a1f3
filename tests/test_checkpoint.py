"""Checkpoints outlive the devices they were saved from; the rest is covered by test_train."""

import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import numpy as np
import test_steps

from mtbus_jax.checkpoint import Checkpoints

HERE = pathlib.Path(__file__).parent

# Runs in a process of its own: the number of devices is fixed when JAX starts.
SAVE = textwrap.dedent(
    """
    import pathlib
    import sys
    import jax
    import jax.numpy as jnp
    from mtbus_jax import parallel
    from mtbus_jax.checkpoint import Checkpoints
    import test_steps

    state = test_steps.make_state()
    plateau = state.plateau._replace(best_epoch=jnp.int32(3))
    state = state.replace(epoch=jnp.int32(4), plateau=plateau)
    assert jax.local_device_count() == 2
    with Checkpoints(pathlib.Path(sys.argv[1]), {"dataset": "a"}) as checkpoints:
        checkpoints.save(parallel.replicate(state, jax.local_devices()))
    """
)


def test_a_state_saved_from_two_devices_is_restored_on_one(tmp_path):
    flags = "--xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(HERE)}
    subprocess.run(
        [sys.executable, "-c", SAVE, tmp_path], env=environment, check=True, cwd=HERE.parent
    )
    assert jax.local_device_count() == 1
    like = test_steps.make_state()
    with Checkpoints(tmp_path, {"dataset": "a"}) as checkpoints:
        state = checkpoints.restore_latest(like)
        best = checkpoints.restore_best(like)
    assert int(state.epoch) == 4
    jax.tree.map(np.testing.assert_array_equal, state.params, like.params)
    jax.tree.map(np.testing.assert_array_equal, best["params"], like.params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
