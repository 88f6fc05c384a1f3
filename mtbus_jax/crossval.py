"""The main job: train the chosen folds, test them, write the summary."""

from __future__ import annotations

import contextlib
import copy
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
from ml_collections import config_dict

from mtbus_jax import configuration, data, report, splits, types
from mtbus_jax.data import places
from mtbus_jax.errors import Stopped, UserError
from mtbus_jax.evaluation import summary
from mtbus_jax.evaluation.evaluate import evaluate_fold
from mtbus_jax.evaluation.trust import measure
from mtbus_jax.runtime import parallel, stopping
from mtbus_jax.training import (
    checkpoint,
    device_data,
    encoder_start,
    fold_access,
    logbook,
    memory,
    run_folder,
    run_splits,
    seen,
    trained_folds,
    warm_start,
)
from mtbus_jax.training.evaluator import Evaluator
from mtbus_jax.training.experiment import Experiment
from mtbus_jax.training.fold import FoldLoop, FoldRun, train_folds


def train_and_evaluate(
    config: config_dict.ConfigDict, workdir: Path | str, *, folds: tuple[int, ...] | None = None
) -> dict:
    """Trains and tests the folds that the configuration names; resumes an existing run.

    Args:
      config: all fields of ``configs/base.py``.
      workdir: the run folder, created if missing.
      folds: train only these of them now. Several processes may train different folds of one run
        folder at the same time; each locks its folds, and another process on them is refused.

    Returns:
      The content of ``summary.json``.

    Raises:
      UserError: for anything the user can fix: names, values, missing data, another run's folder,
        a fold that another process trains.
      Stopped: on SIGTERM or Ctrl-C; the message says what has been saved.
    """
    workdir = Path(workdir)
    # Anything wrong is found before the folder is touched.
    parallel.on_primary(lambda: run_folder.check_class_order(workdir))
    parallel.on_primary(lambda: places.check_apart(workdir, config))
    with parallel.together():
        # Before a dataset is built, which can take minutes.
        memory.check(Experiment.from_config(config))
        cases = data.load_configured(config)
        config = data.resolve(config, cases)
        experiment = Experiment.from_config(config)
        started = None
        if not (workdir / run_folder.CONFIG).exists():  # a continued run has its weights
            started = experiment.check_new()
        vgg = experiment.lossnet()
    fingerprint = fold_access.same_everywhere(config, cases)
    parts = fold_access.from_primary(lambda: _find_folds(workdir, cases, config))
    config.data.folds = tuple(config.data.folds) or tuple(range(len(parts)))
    wanted = config.data.folds if folds is None else folds
    for numbers in (config.data.folds, wanted):
        run_folder.check_folds(numbers, len(parts))
    if types.CLASSIFICATION in experiment.config.tasks:
        for fold in wanted:
            splits.check_classes(parts[fold], cases, fold)
    for fold in wanted:
        memory.check_batch(config, parts[fold], fold)
    parallel.on_primary(
        lambda: [
            logbook.check_epochs(run_folder.fold_dir(workdir, fold), config.train.epochs)
            for fold in wanted
        ]
    )
    parallel.on_primary(lambda: fold_access.check_origins(workdir, cases, parts, fingerprint))
    sources = parallel.on_primary(
        lambda: _sources(config, workdir, cases, parts, wanted),
        to_json=lambda found: [[fold, source.to_json()] for fold, source in found.items()],
        from_json=lambda pairs: {f: warm_start.StartingWeights.from_json(s) for f, s in pairs},
    )
    like = experiment.abstract_state()
    for source in sources.values():
        warm_start.check(source, like)  # by every process: process 0 passes the weights on
    placed = device_data.place(cases, experiment.devices)
    with (
        _stopped_in_words(workdir, wanted),
        stopping.on_sigterm(),
        fold_access.held(workdir, wanted),
    ):
        parallel.on_primary(lambda: run_folder.open_run(workdir, config))
        content = parallel.on_primary(
            lambda: run_splits.write_splits(
                workdir, cases, folds=parts, **run_splits.drawing(config.data)
            )
        )
        parallel.on_primary(lambda: seen.write(workdir, cases, config))
        if config.log.progress and parallel.is_primary():
            _announce(experiment, cases, content, wanted)
        if not sources:  # whose weights replace those of the encoder
            parallel.on_primary(lambda: encoder_start.record(workdir, config, started))
        arguments = {
            f: fold_access.arguments(workdir, cases, parts, f, fingerprint) for f in wanted
        }
        starts = {f: functools.partial(warm_start.start, source) for f, source in sources.items()}
        runs = [
            FoldRun(experiment, cases, parts[f], **arguments[f], start=starts.get(f))
            for f in wanted
        ]
        evaluator = Evaluator(experiment, placed)
        trained_on = device_data.with_lossnet(placed, vgg, experiment.devices)
        for run in train_folds(FoldLoop(experiment, trained_on, evaluator), runs):
            parallel.on_primary(functools.partial(_record_trained, workdir, run, config))
            evaluate_fold(experiment, evaluator, cases, parts[run.fold], **arguments[run.fold])
            # After every fold, so that a long run can be read while it goes on.
            result = parallel.on_primary(lambda: _write_results(workdir, cases, parts))
    return result


def write_tables(config: config_dict.ConfigDict, workdir: Path | str) -> dict:
    """Writes the tables over all folds tested so far, as is done after each fold.

    If two processes finish a fold at the same moment, each may leave the other's fold out.

    Args:
      config: of the run.
      workdir: the run folder.

    Returns:
      The content of ``summary.json``.

    Raises:
      UserError: if nothing has been tested, or the data is missing.
    """
    workdir = Path(workdir)
    cases = data.load_configured(config)
    config = data.resolve(config, cases)
    return _write_results(workdir, cases, _find_folds(workdir, cases, config))


def evaluate(
    workdir: Path | str,
    *,
    overrides: config_dict.ConfigDict | None = None,
    changes: Mapping[str, str | bool] | None = None,
) -> dict:
    """Tests the trained folds of a run folder again and rewrites its tables.

    Args:
      workdir: a run folder.
      overrides: a configuration whose data folders and ``eval`` section are used instead of the
        run's own; the ``eval`` section is then saved with the run.
      changes: without ``overrides``, such fields to set in the run's own configuration, see
        `configuration.Given`.

    Returns:
      The content of ``summary.json``.

    Raises:
      UserError: for a field that does not exist or a value that does not fit it; if the folder is
        not a run, its data is missing or has changed, its classes are in another order, or another
        process trains one of its folds.
    """
    workdir = Path(workdir)
    config = parallel.on_primary(
        lambda: run_folder.load_config(workdir),
        to_json=config_dict.ConfigDict.to_dict,
        from_json=run_folder.config_from_json,
    )
    parallel.on_primary(lambda: run_folder.check_class_order(workdir))
    own = copy.deepcopy(config)
    if changes and overrides is None:
        overrides = configuration.changed(copy.deepcopy(config), changes)
    if overrides is not None:
        given = {field: overrides.data[field] for field in places.PLACES}
        for field in {places.NAME, places.FOLDS_FILE} & (changes or {}).keys():
            name = field.removeprefix("data.")
            given[name] = overrides.data[name]
        config = places.with_places(config, given)
        config.eval = overrides.eval
    with parallel.together():
        cases = data.load_configured(config)
    fingerprint = fold_access.same_everywhere(config, cases)
    folds = fold_access.from_primary(lambda: _find_folds(workdir, cases, config))
    networks = parallel.on_primary(
        lambda: run_folder.networks(workdir, config),
        to_json=lambda folders: [str(folder) for folder in folders],
        from_json=lambda folders: [Path(folder) for folder in folders],
    )
    # Checked before anything is changed there: the data may differ from the run's.
    parallel.on_primary(
        lambda: [fold_access.check_origins(each, cases, folds, fingerprint) for each in networks]
    )
    trained = parallel.on_primary(lambda: _trained(networks[0], len(folds)))
    config.train.devices = 0  # those of this machine
    experiment = Experiment.from_config(config)
    evaluator = Evaluator(experiment, device_data.place(cases, experiment.devices))
    with fold_access.held(workdir, trained):
        parallel.on_primary(lambda: _say_changes(own.eval, config.eval))
        parallel.on_primary(
            lambda: run_splits.write_splits(
                workdir, cases, folds=folds, **run_splits.drawing(config.data)
            )
        )
        moved = places.may_have_moved(own, config)
        if any(field not in moved for field, *_ in run_folder.differences(own, config)):
            # If this is stopped midway, no old table may remain beside a new one.
            parallel.on_primary(lambda: _forget_tests(workdir))
        for fold in trained:
            arguments = fold_access.arguments(workdir, cases, folds, fold, fingerprint)
            evaluate_fold(experiment, evaluator, cases, folds[fold], networks=networks, **arguments)
        parallel.on_primary(lambda: seen.write(workdir, cases, config))
        if overrides is not None:
            parallel.on_primary(lambda: run_folder.record(workdir, "eval", config.eval))
        return parallel.on_primary(lambda: _write_results(workdir, cases, folds))


def _say_changes(before: config_dict.ConfigDict, after: config_dict.ConfigDict) -> None:
    """Reports on standard error how the ``eval`` section changes."""
    for name in after:
        if before[name] != after[name]:
            text = f"tested with eval.{name}={after[name]!r} instead of {before[name]!r}"
            print(text, file=sys.stderr, flush=True)


def _forget_tests(workdir: Path) -> None:
    for name in (summary.SUMMARY_JSON, summary.SUMMARY_MD):
        (workdir / name).unlink(missing_ok=True)
    for fold in run_folder.fold_numbers(workdir):
        (run_folder.fold_dir(workdir, fold) / run_folder.CASES).unlink(missing_ok=True)


def _trained(workdir: Path, available: int) -> list[int]:
    """Folds whose training is over; names the others on standard error.

    Raises:
      UserError: if there is none.
    """
    started = [fold for fold in run_folder.fold_numbers(workdir) if fold < available]
    weights = [fold for fold in started if trained_folds.has_weights(workdir, fold)]
    trained = [fold for fold in weights if trained_folds.is_over(workdir, fold)]
    for folds, what in (
        ([f for f in started if f not in weights], "without a finished checkpoint"),
        ([f for f in weights if f not in trained], "whose training is not over"),
    ):
        if folds:
            listed = ", ".join(map(str, folds))
            print(f"left out: fold {listed}, {what}", file=sys.stderr, flush=True)
    if not trained:
        raise UserError(
            f"{workdir} holds no trained fold. "
            + (
                "Repeat the command that started the run; it continues where it stopped."
                if weights
                else "Train first, with --config."
            )
        )
    return trained


def _record_trained(workdir: Path, run: FoldRun, config: config_dict.ConfigDict) -> None:
    """Records that a fold is trained; the record of an earlier start is kept."""
    path = run_folder.fold_dir(workdir, run.fold) / run_folder.TRAINED
    if run.trained_now or not path.exists():
        run_folder.write_trained(workdir, run.fold, config)


@contextlib.contextmanager
def _stopped_in_words(workdir: Path, folds: Sequence[int]) -> Iterator[None]:
    """When training is stopped, says what has been saved and how to continue."""
    try:
        yield
    except KeyboardInterrupt as stop:
        by = "stopped by SIGTERM" if isinstance(stop, Stopped) else "stopped"
        saved = {f: _epoch_on_disk(workdir, f) for f in folds}
        begun = [f"fold {f} up to epoch {epoch}" for f, epoch in saved.items() if epoch]
        # Another process may look before process 0 has written.
        what = ", ".join(begun) or "no epoch yet" if parallel.is_primary() else "see process 0"
        raise Stopped(
            f"{by}. Saved in {workdir}: {what}. The same command goes on from there.",
            *([stop.number] if isinstance(stop, Stopped) else []),
        ) from None


def _epoch_on_disk(workdir: Path, fold: int) -> int:
    directory = run_folder.fold_dir(workdir, fold) / "checkpoints"
    return checkpoint.epoch_on_disk(directory, checkpoint.LATEST)


def _find_folds(
    workdir: Path, cases: types.Cases, config: config_dict.ConfigDict
) -> list[splits.Split]:
    return run_splits.find_folds(workdir, cases, **run_splits.drawing(config.data))


def _write_results(workdir: Path, cases: types.Cases, folds: list[splits.Split]) -> dict:
    """Writes trust, summary and report of all tested folds; returns the summary."""
    measure.write_trust(workdir, cases, folds)
    result = summary.write_summary(workdir)
    if result["results"]:
        report.write_report(workdir, cases)
    return result


def _sources(
    config: config_dict.ConfigDict,
    workdir: Path,
    cases: types.Cases,
    folds: list[splits.Split],
    wanted: tuple[int, ...],
) -> dict[int, warm_start.StartingWeights]:
    """Starting weights of folds that have not begun; none without ``train.start_from``."""
    fresh = [f for f in wanted if not _epoch_on_disk(workdir, f)]
    found = {f: warm_start.find(config, f, folds[f], cases) for f in fresh}
    return {f: source for f, source in found.items() if source is not None}


def _announce(
    experiment: Experiment, cases: types.Cases, content: dict, folds: tuple[int, ...]
) -> None:
    """Says what is about to run and where, since JAX falls back to the CPU silently."""
    config = experiment.config
    devices = ", ".join(map(parallel.in_words, experiment.devices))
    several = jax.process_count() > 1
    processes = f" in {jax.process_count()} processes" if several else ""
    print(
        f"{config.name}: {config.model.name} on {cases.name}, {len(cases)} images, "
        f"{config.data.split} folds {folds} of {len(content['folds'])}; "
        f"{len(experiment.devices)} device(s){processes}: {devices}; JAX {jax.__version__}",
        flush=True,
    )
