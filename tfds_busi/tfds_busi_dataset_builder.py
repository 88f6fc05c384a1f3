"""TFDS builder: BUSI, Curated BUSI, BUS-UCLM, the phantoms, and folders of your own pictures.

    tfds build tfds_busi --config=curated_busi --manual_dir=DIR
    tfds build tfds_busi --config=folder --manual_dir=DIR

The records are always ArrayRecord, so that they can be read without TensorFlow, and lie in the
published order (class name, then number or file name), which the published folds depend on.
"""

from __future__ import annotations

import contextlib
import csv
import io
import multiprocessing
import os
import pathlib
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mtbus_jax import grouping
from mtbus_jax.errors import UserError, exit_on_user_error
from mtbus_jax.types import CLASS_NAMES
from tfds_busi import configs, fetch, folds, layouts, named, own, raw

FILE_FORMAT = "array_record"
_DUPLICATES = pathlib.Path(__file__).with_name("duplicate_groups.csv")
_NEAR_DUPLICATES = pathlib.Path(__file__).with_name("near_duplicates.csv")
# Photographs of speckle hardly compress: zlib level 6 takes twice the time to save 3 % here.
_PNG_LEVEL = 3


class Builder(tfds.core.GeneratorBasedBuilder):
    """Breast-ultrasound images with tumour mask, class, group and published test fold."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 - the base class names it so
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "phantom needs nothing. "
        f"busi, curated_busi: {fetch.INSTRUCTIONS['busi']}. "
        f"bus_uclm: {fetch.INSTRUCTIONS['bus_uclm']}. "
        f"bus_bra: {named.INSTRUCTIONS['bus_bra']}. "
        f"breast_usg: {named.INSTRUCTIONS['breast_usg']}. "
        "folder: pass the folder with your own pictures, see docs/own_data.md."
    )
    BUILDER_CONFIGS = configs.CONFIGS

    def __init__(self, *, file_format: Any = None, config: Any = None, **kwargs: Any):
        """Refuses another file format and an unknown configuration with a `UserError`."""
        with _exit_under_tfds_cli():
            _check_file_format(file_format)
            if isinstance(config, str) and config.split(":")[0] not in self.builder_configs:
                raise UserError(
                    f"Unknown configuration '{config}' of tfds_busi; choose one of "
                    f"{', '.join(self.builder_configs)}."
                )
            self._manual_dir: pathlib.Path | None = None
            super().__init__(file_format=FILE_FORMAT, config=config, **kwargs)

    def download_and_prepare(
        self, *, download_config: Any = None, file_format: Any = None, **kwargs: Any
    ) -> None:
        """As the base class; a `UserError` under the ``tfds`` command ends it without traceback."""
        with _exit_under_tfds_cli():
            _check_file_format(file_format)
            if download_config is not None:
                _check_whole(download_config.max_examples_per_split)
                if download_config.manual_dir:
                    self._manual_dir = pathlib.Path(download_config.manual_dir).expanduser()
            self._check_same_folder()
            super().download_and_prepare(download_config=download_config, **kwargs)

    def _check_same_folder(self) -> None:
        """Refuses another folder than the one that was built; the base class would keep the old."""
        if self.builder_config.name != "folder" or not self.is_prepared():
            return
        kept, given = self.info.metadata, self._manual_dir
        if given is None:
            return
        if not given.is_dir():
            raise UserError(f"--manual_dir={given}: there is no such folder.")
        built_from = kept[own.FOLDER]
        if str(given.resolve()) != built_from or own.state(given) != kept[own.STATE]:
            raise UserError(
                f"{self.data_path} was built from {built_from} as it was then; --overwrite builds "
                f"it again, from {given}. Training with --config.data.name=FOLDER needs neither."
            )

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text
        features = {
            "uid": text(doc="Unique name, such as benign_20 or ALWI_000."),
            "image": tfds.features.Image(
                shape=(None, None, 3), encoding_format="png", doc="Grey is replicated."
            ),
            "mask": tfds.features.Image(
                shape=(None, None, 1), encoding_format="png", doc="0 background, 255 tumour."
            ),
            "label": tfds.features.ClassLabel(names=CLASS_NAMES),
            "height": tfds.features.Scalar(np.int32, doc="Original height in pixels."),
            "width": tfds.features.Scalar(np.int32, doc="Original width in pixels."),
            "group": text(doc="Joined patient and set of near-duplicates; else the uid."),
            "test_fold": tfds.features.Scalar(np.int32, doc="Fold 0..3 in which it is tested."),
        }
        metadata = None
        if self.builder_config.source == "folder":
            # Its classes are not known before it is read; they are kept beside the records.
            features["label"] = text(doc='Class name, "" if it is not known.')
            features["has_mask"] = tfds.features.Scalar(np.bool_, doc="Whether mask is known.")
            features["about"] = text(doc="Further columns of tables, such as BI-RADS, as JSON.")
            metadata = tfds.core.MetadataDict()
        info = self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://doi.org/10.1016/j.cmpb.2024.108540",
            disable_shuffling=True,  # the order is the published one
            metadata=metadata,
        )
        # TFDS would look for facts about it among its own datasets, and leave a folder in /tmp.
        info.initialize_from_bucket = lambda: None
        return info

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        config = self.builder_config
        # TFDS reserves the name `all`; reading `split="all"` gives this one split.
        if config.source == "phantom":
            return {"train": self._generate_examples(self._phantoms())}
        if config.source == "folder":
            folder = self._manual_dir
            if folder is None and config.download:  # TFDS's folder for manual downloads
                folder = pathlib.Path(dl_manager.manual_dir)
            if folder is None:
                raise UserError("folder: name the folder with your pictures as --manual_dir.")
            return {"train": self._generate_examples(self._of_folder(folder))}
        records = fetch.records(config.source, config.name, self._manual_dir, dl_manager)
        if config.curated:
            removed = removed_from_curated()
            records = [record for record in records if record.uid not in removed]
        self._check_counts([(record.label, record.patient) for record in records])
        return {"train": self._generate_examples(self._pictures(records))}

    def _generate_examples(
        self, pictures: Iterator[dict[str, Any]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, example in enumerate(pictures):
            height, width = example["mask"].shape
            mask = example["mask"].astype(np.uint8) * 255
            png = {"image": _png(example["image"]), "mask": _png(mask)}
            yield index, {**example, **png, "height": height, "width": width}

    def _of_folder(self, folder: pathlib.Path) -> Iterator[dict[str, Any]]:
        config = self.builder_config
        with contextlib.ExitStack() as stack:
            if config.download:
                listing = stack.enter_context(named.opened(config.download, folder))
                self._check_counts([(entry.label, entry.group) for entry in listing.entries])
            else:
                listing = layouts.read(folder, normal=config.normal_class)
            print(f"{folder}: {listing.layout}", file=sys.stderr)
            for note in () if config.download else listing.notes:
                warnings.warn(f"{folder}: {note}", UserWarning, stacklevel=2)
            self.info.metadata.update(own.metadata(listing, None if config.download else folder))
            yield from own.examples(listing, stretch=bool(config.download))

    def _phantoms(self) -> Iterator[dict[str, Any]]:
        from mtbus_jax.images import phantom, preprocess

        phantoms = sorted(phantom.make_phantoms(), key=lambda p: CLASS_NAMES[int(p.label)])
        test_fold = folds.draw_test_folds([int(p.label) for p in phantoms])
        for picture, fold in zip(phantoms, test_fold, strict=True):
            empty = np.zeros(picture.image.shape, bool)
            yield {
                "uid": picture.uid,
                "image": np.repeat(picture.image[..., None], 3, axis=-1),
                "mask": preprocess.merge_masks([empty, *picture.masks]),
                "label": int(picture.label),
                "group": picture.uid,
                "test_fold": int(fold),
            }

    def _pictures(self, records: list[raw.Record]) -> Iterator[dict[str, Any]]:
        config = self.builder_config
        test_fold = folds.draw_test_folds([CLASS_NAMES.index(r.label) for r in records])
        if config.folds_digest not in (None, folds.digest([r.uid for r in records], test_fold)):
            raise UserError(
                f"The test folds drawn for {config.name} are not the published ones: either the "
                "image names differ from the published ones, or this scikit-learn draws "
                "differently. Install a scikit-learn version that requirements.txt allows."
            )
        groups = _groups(config.name, records)
        disagreements, soft = [], []
        for record, group, fold in zip(records, groups, test_fold, strict=True):
            image = raw.decode_image(record)
            mask = raw.decode_mask(record, *image.shape[:2])
            soft += mask.between
            if config.source == "bus_uclm":
                drawn = raw.mask_classes(record)
                if drawn != ({record.label} - {"normal"}):
                    disagreements.append(record.uid)
            yield {
                "uid": record.uid,
                "image": image,
                "mask": mask.lesion,
                "label": record.label,
                "group": group,
                "test_fold": int(fold),
            }
        if soft:
            warnings.warn(
                f"{len(soft)} mask files have values between black and white; what is above half "
                f"of the largest counts as lesion: {', '.join(soft)}",
                UserWarning,
                stacklevel=2,
            )
        if disagreements:
            warnings.warn(
                f"{len(disagreements)} images have a mask colour that contradicts their label, "
                f"which is kept: {', '.join(disagreements)}",
                UserWarning,
                stacklevel=2,
            )

    def _check_counts(self, images: list[tuple[str, str | None]]) -> None:
        """Refuses numbers of images per class, or of patients, that are not the published ones.

        Args:
          images: class and patient of each image.
        """
        config = self.builder_config
        counts = Counter(label for label, _ in images)
        found = tuple(counts[name] for name in CLASS_NAMES)
        if config.expected_counts not in (None, found):
            raise UserError(
                f"{config.name} should have {_spell(config.expected_counts)} images; the raw data "
                f"has {_spell(found)}. Unpack the download again into an empty folder."
            )
        patients = len({patient for _, patient in images})
        if config.expected_patients not in (None, patients):
            raise UserError(
                f"{config.name} should have {config.expected_patients} patients; the raw data has "
                f"{patients}. Unpack the download again into an empty folder."
            )


def removed_from_curated() -> set[str]:
    """The uids of BUSI that Curated BUSI leaves out: every member of every duplicate group."""
    with _DUPLICATES.open(newline="", encoding="utf-8") as file:
        return {f"{row['class']}_{row['id']}" for row in csv.DictReader(file)}


def _groups(config_name: str, records: list[raw.Record]) -> list[str]:
    """What belongs together: one patient, or near-duplicates, or both joined; else the uid."""
    uid = [record.uid for record in records]
    near = grouping.read_near_duplicates(_NEAR_DUPLICATES, config_name, uid)
    joined = grouping.merge_groups([record.patient or "" for record in records], near)
    return [group or own for group, own in zip(joined.tolist(), uid, strict=True)]


def _check_file_format(file_format: Any) -> None:
    value = getattr(file_format, "value", file_format)
    if value not in (None, FILE_FORMAT):
        raise UserError(
            f"tfds_busi is stored as {FILE_FORMAT} only, because that is read without TensorFlow; "
            f"leave out --file_format={value}."
        )


def _check_whole(max_examples_per_split: int | None) -> None:
    if max_examples_per_split is not None:
        raise UserError(
            "tfds_busi is built whole: with --max_examples_per_split the result would be taken for "
            "the whole dataset from then on. Leave the flag out."
        )


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()


def _spell(counts: tuple[int, ...] | None) -> str:
    return ", ".join(f"{n} {name}" for n, name in zip(counts or (), CLASS_NAMES, strict=True))


def _exit_under_tfds_cli() -> contextlib.AbstractContextManager[None]:
    """`exit_on_user_error` where the ``tfds`` command runs; elsewhere the error passes through."""
    if multiprocessing.parent_process() is not None:
        return contextlib.nullcontext()  # a worker that exits would leave its pool waiting
    command = os.path.basename(sys.argv[0] if sys.argv else "")
    main_spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    main_module = getattr(main_spec, "name", "") or ""
    if command in ("tfds", "tfds.exe") or main_module.startswith("tensorflow_datasets.scripts.cli"):
        return exit_on_user_error("tfds build")
    return contextlib.nullcontext()
