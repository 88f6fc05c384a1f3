"""main.py with the network `tiny`, which kills itself (SIGKILL) at a moment of the test's choice.

    python main_killed.py MOMENT COUNT --config=…         (COUNT from 1; MOMENT of `MOMENTS`)
    python main_killed.py no_room KILOBYTES --config=…    (no file may grow beyond that)
"""  # fmt: skip

import importlib
import os
import pathlib
import resource
import runpy
import signal
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

# By name: where a function is, and whether the process dies before or after its call.
MOMENTS = {
    "before_line": ("mtbus_jax.training.logbook:Logbook.write", "before"),
    "after_line": ("mtbus_jax.training.logbook:Logbook.write", "after"),
    "before_checkpoint": ("orbax.checkpoint:CheckpointManager.save", "before"),
    "during_checkpoint": ("orbax.checkpoint:CheckpointManager.save", "after"),
    "after_checkpoint": ("mtbus_jax.training.checkpoint:Checkpoints.save", "after"),
    "half_a_file": ("os:replace", "before"),
    "between_tables": ("mtbus_jax.evaluation.stored_predictions:write", "after"),
}


def die_at(moment: str, count: int) -> None:
    """Makes the call number ``count`` of a function the process's last."""
    where, when = MOMENTS[moment]
    module, _, path = where.partition(":")
    *owners, name = path.split(".")
    owner = importlib.import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    call, calls = getattr(owner, name), 0

    def counted(*args, **kwargs):
        nonlocal calls
        # Other libraries replace files, too.
        calls += moment != "half_a_file" or str(args[0]).endswith(".partial")
        if when == "before" and calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args, **kwargs)
        if when == "after" and calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counted)


if __name__ == "__main__":
    import tiny

    from mtbus_jax import models

    models.REGISTRY["tiny"] = tiny.TinyNet
    moment, count = sys.argv[1], int(sys.argv[2])
    if moment == "no_room":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * count,) * 2)
    else:
        die_at(moment, count)
    sys.argv[:3] = ["main.py"]
    runpy.run_path(str(ROOT / "main.py"), run_name="__main__")
