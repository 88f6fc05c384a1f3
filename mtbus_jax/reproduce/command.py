"""Reproduces a table of Aumente-Maestro et al. 2025: trains what is missing, writes the table.

    python -m mtbus_jax.reproduce --table=5 --workdir=runs/tables

writes ``table_5.md``, ``.csv`` and ``.tex`` and the tests of significance. Given again, the command
goes on where it was. ``--dry_run`` says what it would train and how long that takes here;
``--epochs``, ``--image_size``, ``--width`` and ``--folds`` scale it down, and the title says so.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from mtbus_jax.errors import UserError

_PROGRAM = "mtbus_jax.reproduce"
_BASE = Path(__file__).resolve().parent.parent.parent / "configs" / "base.py"


def _define(argv: Sequence[str]) -> flags.FlagValues:
    """The flags of this command alone, so that it can be called from a program with others."""
    values = flags.FlagValues()
    options = {"flag_values": values}
    flags.DEFINE_boolean("help", False, "Show this help.", **options)
    flags.DEFINE_integer("table", None, "Table to reproduce: 4 to 11.", **options)
    flags.DEFINE_integer("figure", None, "Figure to reproduce: 6.", **options)
    flags.DEFINE_string("workdir", None, "Folder for runs and results; made if missing.", **options)
    config_flags.DEFINE_config_file(
        "config",
        str(_BASE) if _BASE.exists() else None,
        "Configuration that every run starts from; any field can be changed, as in "
        "--config.data.manual_dir=DIR.",
        lock_config=True,
        sys_argv=list(argv),
        **options,
    )
    flags.DEFINE_integer("epochs", None, "Train for so many epochs instead.", **options)
    flags.DEFINE_list("image_size", None, "Height,width in pixels instead.", **options)
    flags.DEFINE_integer(
        "width", None, "Feature maps of the first level instead, for every network.", **options
    )
    flags.DEFINE_list("folds", None, "Do these folds only, as in --folds=0,1.", **options)
    flags.DEFINE_list("cases", [], "Images of the figure by uid; default: medians.", **options)
    flags.DEFINE_boolean("dry_run", False, "Say what would be trained, and how long.", **options)
    flags.DEFINE_boolean("no_train", False, "Write from what is there.", **options)
    flags.DEFINE_integer("max_attempts", 2, "Leave a job alone after so many failures.", **options)
    flags.DEFINE_boolean("retry_failed", False, "Try such jobs again.", **options)
    flags.DEFINE_enum(
        "launcher", "inline", ("inline", "submitit"), "Where jobs run: in this process, or as "
        "processes of their own, local or (with a --slurm_… option) on a cluster.", **options
    )  # fmt: skip
    flags.DEFINE_integer(
        "parallel_jobs", 0, "submitit: jobs at once; 0 is 1 locally, all on SLURM.", 0, **options
    )
    flags.DEFINE_string("slurm_partition", None, "SLURM: partition.", **options)
    flags.DEFINE_string("slurm_account", None, "SLURM: account.", **options)
    flags.DEFINE_integer("slurm_time", None, "SLURM: minutes a job; default 1440.", 1, **options)
    flags.DEFINE_integer("slurm_gpus", None, "SLURM: GPUs a job.", 1, **options)
    flags.DEFINE_integer("slurm_cpus", None, "SLURM: CPU cores a job.", 1, **options)
    flags.DEFINE_integer("slurm_mem_gb", None, "SLURM: memory a job, GB.", 1, **options)
    return values


def _parse(argv: Sequence[str]) -> flags.FlagValues:
    """Parses the flags; whatever is wrong with them becomes a `UserError`."""
    try:
        values = _define(argv)
        rest = values(list(argv))
    except flags.Error as error:
        raise UserError(f"{error}. --help lists the flags.") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # ml_collections: an unknown field (with its nearest match), or a value of another type.
        message = error.args[0] if error.args else type(error).__name__
        raise UserError(f"--config: {message}") from None
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}; flags are written --name=value.")
    return values


def _image_size(values: flags.FlagValues) -> tuple[int, int] | None:
    if values.image_size is None:
        return None
    try:
        height, width = map(int, values.image_size)
    except ValueError:
        raise UserError(
            f"--image_size={','.join(values.image_size)}: give height and width in pixels, such as "
            "--image_size=64,64."
        ) from None
    return height, width


def _folds(values: flags.FlagValues) -> tuple[int, ...] | None:
    if values.folds is None:
        return None
    try:
        return tuple(map(int, values.folds))
    except ValueError:
        raise UserError(
            f"--folds={','.join(values.folds)}: give numbers, such as --folds=0,1."
        ) from None


def _study(values: flags.FlagValues):
    from mtbus_jax.reproduce import plan

    if not values.workdir:
        raise UserError("--workdir is missing: the folder for runs and tables.")
    if values.config is None:
        raise UserError(
            "--config is missing: the configurations are not part of an installed package. Give "
            "--config=…/configs/base.py of a clone of the repository."
        )
    flag = values["config"]
    try:
        _ = values.config.name  # a file that could not be loaded is reported on first access
    except OSError:
        path = config_flags.get_config_filename(flag)
        raise UserError(
            f"--config={path}: there is no such file, or it cannot be loaded."
        ) from None
    except AttributeError as error:
        raise UserError(f"--config: {error}") from None
    scale = plan.Scale(
        epochs=values.epochs,
        image_size=_image_size(values),
        width=values.width,
        folds=_folds(values),
    )
    explicit = frozenset(config_flags.get_override_values(flag))
    return plan.Study(Path(values.workdir), values.config, explicit, scale)


def _slurm(values: flags.FlagValues):
    from mtbus_jax.reproduce import launch

    options = {
        name: getattr(values, f"slurm_{name}")
        for name in ("partition", "account", "time", "gpus", "cpus", "mem_gb")
    }
    slurm = launch.Slurm(**options)
    if values.launcher == "inline" and (slurm.is_wanted or values.parallel_jobs):
        raise UserError("--slurm_… and --parallel_jobs need --launcher=submitit.")
    return slurm


def _launcher(values: flags.FlagValues, slurm):
    from mtbus_jax.reproduce import launch

    if values.launcher == "inline":
        return launch.inline
    folder = Path(values.workdir) / "submitit"
    return launch.through_submitit(folder, slurm=slurm, parallel=values.parallel_jobs)


def _choose(kind: str, number: int | None, known: dict):
    if number is not None and number not in known:
        numbers = ", ".join(map(str, known))
        raise UserError(f"--{kind}={number}: there is no such {kind} here. Known: {numbers}.")
    return known.get(number)


def run(values: flags.FlagValues, command: str) -> None:
    """Does what the flags say.

    Args:
      values: of the flags.
      command: as given, to put into the results.

    Raises:
      UserError: for wrong use or bad input, and at the end if a row is missing.
    """
    # Imported late, so that --help answers at once.
    import jax

    from mtbus_jax import crossval
    from mtbus_jax.reproduce import estimate, jobs, plan, rows
    from mtbus_jax.runtime import parallel

    table = _choose("table", values.table, rows.TABLES)
    columns = _choose("figure", values.figure, rows.FIGURES)
    if table is None and columns is None:
        numbers = ", ".join(map(str, rows.TABLES))
        raise UserError(f"--table is missing, one of {numbers}; or --figure=6.")
    if values.max_attempts < 1:
        raise UserError(f"--max_attempts={values.max_attempts} must be at least 1.")
    study = _study(values)
    runs = rows.runs_of((table.rows if table else ()) + (columns or ()))
    study.check_folders(runs)
    wanted = study.jobs(runs)
    parallel.enable_compilation_cache()
    if values.dry_run:
        print(estimate.to_text(estimate.estimate(wanted)))
        return
    missing = [job for job in wanted if not jobs.is_finished(job)]
    if missing and not values.no_train:
        slurm = _slurm(values)
        if values.launcher == "submitit":
            # The devices belong to the jobs; here only tables are computed.
            jax.config.update("jax_platforms", "cpu")
        plan.check_jobs(missing)
        launch = _launcher(values, slurm)
        if values.retry_failed:
            jobs.forget_failures(missing)
        jobs.attempt_all(missing, launch, max_attempts=values.max_attempts)
        if values.launcher == "submitit":
            for job in {job.workdir: job for job in missing if jobs.is_finished(job)}.values():
                crossval.write_tables(job.config, job.workdir)
    if table:
        _write_table(study, table, command)
    if columns:
        _write_figure(study, values.figure, columns, tuple(values.cases), command)
    _refuse_missing([job for job in missing if not jobs.is_finished(job)], values)


def _write_table(study, table, command: str) -> None:
    from mtbus_jax.reproduce import compare, facts, layout, results, rows, write

    sections = [
        (section, [results.row_result(study, row) for row in section.rows])
        for section in table.sections
    ]
    about = facts.gather(study, rows.runs_of(table.rows), command=command)
    content = layout.Content(table, sections, compare.compare(sections), about)
    paths = write.write_table(content, study.workdir)
    print(paths[0].read_text(encoding="utf-8"))
    print("Written:", *paths)


def _write_figure(study, number: int, columns, uids: tuple[str, ...], command: str) -> None:
    from mtbus_jax.reproduce import facts, gallery, results, rows

    found = [results.row_result(study, row) for row in columns]
    if any(result.missing for result in found):
        return
    about = facts.gather(study, rows.runs_of(columns), command=command)
    print("Written:", *gallery.write_figure(study, found, number, facts=about, uids=uids))


def _refuse_missing(missing: list, values: flags.FlagValues) -> None:
    """Ends the command as failed, naming what is missing and why."""
    from mtbus_jax.reproduce import jobs

    if not missing:
        return
    texts = []
    for job in missing[:8]:
        record = jobs.read_record(job)
        if jobs.is_running(job):
            texts.append(f"{job.name} is being trained by another process")
        elif record.attempts:
            log = f" ({record.log})" if record.log else ""
            texts.append(f"{job.name} failed {record.attempts} times{log}: {record.error}")
        else:
            texts.append(f"{job.name} is not finished")
    if len(missing) > len(texts):
        texts.append(f"and {len(missing) - len(texts)} more")
    mend = "Leave --no_train out to train them." if values.no_train else (
        "Mend that and give the command again with --retry_failed."
    )  # fmt: skip
    raise UserError(f"{len(missing)} jobs are missing: {'; '.join(texts)}. {mend}")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point.

    Args:
      argv: program name and flags; default: the process's own.

    Raises:
      UserError: see `run`.
    """
    argv = sys.argv if argv is None else argv
    values = _parse(argv)
    if values.help:
        print(__doc__)
        print(values.module_help(__name__))
        return
    run(values, shlex.join(["python", "-m", _PROGRAM, *argv[1:]]))
