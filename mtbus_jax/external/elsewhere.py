"""Tests networks on a dataset that they were not trained on and writes the results."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import config_dict

from mtbus_jax import data, files, types
from mtbus_jax.errors import UserError
from mtbus_jax.external.markdown import to_markdown
from mtbus_jax.external.score import LEVEL, RESAMPLES, measured, rows_of
from mtbus_jax.images import from_array, intensity
from mtbus_jax.predict import Predictor
from mtbus_jax.training import bundled, run_folder, seen, warm_start

CASES, SUMMARY_JSON, SUMMARY_MD = run_folder.CASES, run_folder.SUMMARY, "summary.md"
_ALL_FILES = {CASES, SUMMARY_JSON, SUMMARY_MD}
# Datasets that share their pictures.
_SAME_PICTURES = {"busi": "curated_busi"}


def evaluate(
    dataset: str,
    out: Path | str,
    *,
    run: Path | str | None = None,
    rename: Mapping[str, str] | None = None,
    match_intensity: bool = False,
    folds: Sequence[int] | None = None,
    tta: bool | None = None,
    refine: str | None = None,
    places: Mapping[str, str] | None = None,
    normal_class: str = "",
    batch_size: int = 8,
    leave_out_known: bool = False,
) -> dict[str, Any]:
    """Tests networks on other images and writes the figures.

    Args:
      dataset: a name of `data.load_cases`, or a folder.
      out: folder for ``cases.csv``, ``summary.json`` and ``summary.md``; made if missing.
      run: run folder or bundle; None for the network that comes with the library.
      rename: for each class of the dataset, the name of the same class in the run; "" for none,
        so that its images count for the masks only. Classes of the same name need no entry.
      match_intensity: match the grey values to the distribution of the run's own dataset, which
        must be available, see `intensity.match`.
      folds: folds of the ensemble, see `Predictor`.
      tta: see `Predictor`.
      refine: see `Predictor`.
      places: values for the fields of ``config.data`` that say where datasets are, by field name.
      normal_class: for a folder, the class that means "no lesion".
      batch_size: pictures that go through the network together.
      leave_out_known: test without the pictures that the run was trained on, instead of refusing a
        dataset that holds some.

    Returns:
      The content of ``summary.json``.

    Raises:
      UserError: for a run, a dataset or a class that does not fit, or an ``out`` that holds other
        files. Nothing is written in that case.
    """
    out = Path(out).absolute()
    _check_out(out)
    predictor = Predictor(run, folds=folds, tta=tta, refine=refine, batch_size=batch_size)
    config = predictor.trained.config
    if not _knows_pixels(bundled.PRETRAINED if run is None else Path(run), config):
        check_other(dataset, config.data.name)
    unknown = _check_earlier(dataset, predictor, run)
    places = dict(places or {})
    cases = data.load_cases(
        dataset,
        image_size=predictor.image_size,
        resize=config.data.resize,
        enhancement=config.data.enhancement,
        normal_class=normal_class,
        **places,
    )
    folder = bundled.PRETRAINED if run is None else Path(run)
    cases, left_out, by_name = _unknown_alone(
        cases, folder, config, leave_out_known=leave_out_known
    )
    rename = dict(rename or {})
    if types.CLASSIFICATION not in predictor.tasks:
        if rename:
            raise UserError(f"--rename is for runs that tell classes apart; {run} does not.")
        # Masks of any class are scored; only classes that the run knows get a figure of their own.
        rename = {n: "" for n in cases.classes.names if n not in predictor.classes.names}
    cases = with_classes(cases, predictor.classes, rename)
    if not (cases.mask_known | cases.label_known).any():
        raise UserError(f"{cases.name} has neither masks nor classes to test against.")
    if match_intensity:
        own = config.copy_and_resolve_references()
        for field, place in places.items():
            own.data[field] = place
        reference = intensity.histogram(data.load_configured(own).image)
        cases = dataclasses.replace(cases, image=intensity.match(cases.image, reference))
    frames = (from_array(image[..., 0]) for image in cases.image)
    predictions = list(predictor.stream(frames, prepared=True))
    rows = rows_of(cases, predictions)
    content = {
        "name": config.name,
        "model": config.model.name,
        "trained_on": config.data.name,
        "dataset": cases.name,
        "unknown_origin": unknown,
        "left_out": left_out,
        "known_by_name_alone": by_name,
        "folds": list(predictor.folds),
        "predictions_per_image": predictor.members,
        "weights": predictor.trained.digest(),
        "refining": predictor.refine,
        "intensity_matched": match_intensity,
        "image_size": list(predictor.image_size),
        "class_names": list(predictor.classes.names),
        "images": len(cases),
        "groups": len(set(cases.group.tolist())),
        "resamples": RESAMPLES,
        "level": LEVEL,
        **measured(rows, predictor.classes, cases.group),
    }
    with files.folder_at_once(out) as folder:
        texts = {name: rows[name].map(files.cell) for name in ("uid", "group")}
        files.write_text(folder / CASES, rows.assign(**texts).to_csv(index=False))
        files.write_json(folder / SUMMARY_JSON, content)
        files.write_text(folder / SUMMARY_MD, to_markdown(content))
    return content


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out} is a file; give a folder.")
    found = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if found - _ALL_FILES:
        raise UserError(
            f"--out={out} holds other things than an earlier test ({min(found - _ALL_FILES)}); "
            "give an empty or a new folder."
        )


def _check_earlier(dataset: str, predictor: Predictor, run: Path | str | None) -> list[str]:
    """Refuses the pictures of a run that the networks' weights come from (``train.start_from``).

    Returns:
      Runs that no longer exist, so that the pictures they were trained on are unknown.

    Raises:
      UserError: if one of these runs was trained on the pictures.
    """
    config = predictor.trained.config
    whole = run is not None and not bundled.is_bundle(Path(run))
    folders = run_folder.networks(Path(run), config) if whole else []
    configs = [config, *map(run_folder.load_config, folders)]
    gone = set()
    for folder, earlier in itertools.chain.from_iterable(map(warm_start.earlier_runs, configs)):
        if earlier is None:
            gone.add(str(folder))
        elif not _knows_pixels(folder, earlier):
            check_other(dataset, earlier.data.name)
    return sorted(gone)


def _unknown_alone(
    cases: types.Cases, run: Path, config: config_dict.ConfigDict, *, leave_out_known: bool
) -> tuple[types.Cases, int, list[str]]:
    """Leaves out pictures of the run, or of a run it started from, known by their pixels.

    Returns:
      The other images; how many were left out; and names of runs whose pictures could not be
      compared.

    Raises:
      UserError: if some would be left out and ``leave_out_known`` is off, or if none remains.
    """
    lineage = [config]
    if not bundled.is_bundle(run):
        lineage += map(run_folder.load_config, run_folder.networks(run, config))
    earlier = itertools.chain.from_iterable(map(warm_start.earlier_runs, lineage))
    folders = [run, *(folder for folder, found in earlier if found is not None)]
    found = {folder: seen.known(folder, cases, config) for folder in folders}
    by_name = sorted(folder.name for folder, each in found.items() if each is None)
    none = np.zeros(len(cases), bool)
    known = np.any([none, *(each for each in found.values() if each is not None)], axis=0)
    count = int(known.sum())
    if not count:
        return cases, 0, by_name
    first = str(cases.uid[known.argmax()])
    if known.all():
        raise UserError(
            f"All {count} images of {cases.name} are pictures that the run was trained on, such as "
            f"{first!r}; give another dataset."
        )
    if not leave_out_known:
        raise UserError(
            f"{count} of {len(cases)} images of {cases.name} are pictures that the run was trained "
            f"on, such as {first!r}: their pixels are equal. --leave_out_known tests without them."
        )
    return cases.take(np.flatnonzero(~known)), count, by_name


def _knows_pixels(run: Path, config: config_dict.ConfigDict) -> bool:
    """Whether a run on a folder is checked by pixels, since another folder may have its name."""
    return data.stored.is_folder(config.data.name) and seen.read(run) is not None


def check_other(dataset: str, trained_on: str) -> None:
    """Refuses a dataset that the networks were trained on.

    Raises:
      UserError: if both names stand for the same pictures.
    """
    own = data.is_own(dataset) and Path(dataset).is_dir()
    first = str(Path(dataset).resolve()) if own else _SAME_PICTURES.get(dataset, dataset)
    trained = Path(trained_on).expanduser()
    second = str(trained.resolve()) if own else _SAME_PICTURES.get(trained_on, trained_on)
    if first == second:
        raise UserError(
            f"--data={dataset}: the run was trained on these pictures ({trained_on}). Its "
            "cross-validated figures are in its summary.md; give another dataset here."
        )


def with_classes(
    cases: types.Cases, classes: types.Classes, rename: Mapping[str, str]
) -> types.Cases:
    """The cases with the classes of a run instead of their own.

    Args:
      cases: cases with any classes.
      classes: classes of the run.
      rename: see `evaluate`.

    Raises:
      UserError: for a class without a counterpart, or a name in ``rename`` that is not a class.
    """
    for own, theirs in rename.items():
        if own not in cases.classes.names:
            raise UserError(
                f"--rename={own}={theirs}: {cases.name} has no class {own}; it has "
                f"{', '.join(cases.classes.names)}."
            )
        if theirs and theirs not in classes.names:
            raise UserError(
                f"--rename={own}={theirs}: the run has no class {theirs}; it has "
                f"{', '.join(classes.names)}."
            )
    wanted = {name: rename.get(name, name) for name in cases.classes.names}
    present = {cases.classes.names[code] for code in set(cases.label[cases.label_known].tolist())}
    unknown = sorted(name for name in present if wanted[name] and wanted[name] not in classes.names)
    if unknown:
        raise UserError(
            f"{cases.name} has the class {unknown[0]}, which the run does not know; it knows "
            f"{', '.join(classes.names)}. Say which one it is, as in --rename={unknown[0]}="
            f"{classes.names[0]}, or --rename={unknown[0]}= to leave it out of the classification."
        )
    codes = [
        classes.names.index(name) if name in classes.names else types.NO_LABEL
        for name in wanted.values()
    ]
    label = np.array([*codes, types.NO_LABEL], np.int32)[cases.label]  # NO_LABEL (−1): the last
    return dataclasses.replace(cases, label=label, classes=classes)
