"""Trains and evaluates a configuration.

  python main.py --config=configs/mt_unetpp.py --workdir=runs/

Any field of the configuration can be changed on the command line, as in
--config.data.folds='(0,)' --config.train.epochs=50. A run that was stopped goes on where it was
when the same command is given again. Several processes, on one machine or many, train one run
together when each is told of the others; see docs/cluster.md.
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from mtbus_jax.errors import UserError, exit_on_user_error
from mtbus_jax.runtime import cluster

_MODES = ("train_and_evaluate", "evaluate")

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Configuration file, such as configs/mt_unetpp.py.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder; made if it does not exist.")
_MODE = flags.DEFINE_enum(
    "mode",
    "train_and_evaluate",
    _MODES,
    "train_and_evaluate: train the folds, continue where they were, test them; "
    "evaluate: test the trained folds of --workdir again (--config is not needed).",
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes that SLURM (srun) or Kubernetes has started."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "Several processes started by hand: HOST:PORT of the one with --process=0."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "With --coordinator: how many there are.")
_PROCESS = flags.DEFINE_integer("process", None, "With --coordinator: number of this one, from 0.")
_PEER_TIMEOUT = flags.DEFINE_integer(
    "peer_timeout",
    300,
    "Seconds to wait for the other processes: at the start until all have come, later until one "
    "that gives no sign of life counts as lost.",
    lower_bound=1,
)


def _parse(argv: list[str]) -> list[str]:
    """Parses flags; whatever is wrong with them becomes a `UserError`."""
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(str(error)) from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # ml_collections: an unknown field (with its nearest match), or a value of another type.
        message = error.args[0] if error.args else type(error).__name__
        raise UserError(f"--config: {message}") from None
    if _CONFIG.value is not None:
        try:
            _ = _CONFIG.value.name  # a file that could not be loaded is reported on first access
        except OSError:
            path = config_flags.get_config_filename(flags.FLAGS["config"])
            raise UserError(
                f"--config={path}: there is no such file, or it cannot be loaded. The "
                "configurations of this project lie in configs/, such as configs/mt_unetpp.py."
            ) from None
        except AttributeError as error:
            raise UserError(f"--config: {error}") from None
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}; flags are written --name=value.")
    return rest


def main(argv: list[str]) -> None:
    """Dispatches to the library."""
    del argv
    if not _WORKDIR.value:
        raise UserError("--workdir is missing: the folder for results, such as --workdir=runs/.")
    found = cluster.find_cluster(
        coordinator=_COORDINATOR.value,
        processes=_PROCESSES.value,
        process=_PROCESS.value,
        from_environment=_DISTRIBUTED.value,
    )
    # Imported late, so that --help answers at once.
    from mtbus_jax import crossval
    from mtbus_jax.evaluation import summary
    from mtbus_jax.runtime import host_memory, parallel

    host_memory.keep_freed_memory(of_all_threads=False)
    parallel.run_in_caller()
    parallel.enable_compilation_cache()
    if found is not None:
        parallel.start(found, timeout=_PEER_TIMEOUT.value)
    if _MODE.value == "evaluate":
        result = crossval.evaluate(_WORKDIR.value, overrides=_CONFIG.value)
    elif _CONFIG.value is None:
        raise UserError("--config is missing, such as --config=configs/mt_unetpp.py.")
    else:
        result = crossval.train_and_evaluate(_CONFIG.value, _WORKDIR.value)
    if parallel.is_primary():
        print(summary.to_markdown(result))
        print(f"Run folder: {_WORKDIR.value}")


if __name__ == "__main__":
    # Orbax logs every file it opens; warnings still come through.
    logging.set_verbosity(logging.WARNING)
    with exit_on_user_error("main.py"):
        app.run(main, argv=sys.argv, flags_parser=_parse)
