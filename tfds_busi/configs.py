"""The datasets that the builder knows, with the counts and folds that each must have."""

from __future__ import annotations

import dataclasses

import tensorflow_datasets as tfds

# Phantoms: 1.1.0 draws solid masses darker than fat.
_PHANTOM_VERSION = tfds.core.Version("1.1.0")
# Datasets that are read like a folder: 1.1.0 keeps further columns of tables as `about`. Folders:
# 1.2.0 records whether near-duplicates were looked for, and 1.3.0 keeps patients together by their
# DICOM files.
FOLDER_VERSION = tfds.core.Version("1.3.0")
_LIKE_FOLDER_VERSION = tfds.core.Version("1.1.0")


@dataclasses.dataclass(eq=False)
class BusConfig(tfds.core.BuilderConfig):
    """One of the datasets.

    Attributes:
      source: where the images come from: ``phantom``, ``busi``, ``bus_uclm`` or ``folder``.
      curated: leave out every image of ``duplicate_groups.csv``.
      expected_counts: images per class in the order of `CLASS_NAMES`; None checks nothing.
      expected_patients: number of patients; None checks nothing.
      folds_digest: `folds.digest` of the published (uid, fold) list; None checks nothing.
      normal_class: for a folder, the class that means "no lesion"; "" is ``normal``.
      download: for a public dataset that is read like a folder, its name in `named.FINDERS`.
    """

    source: str = "phantom"
    curated: bool = False
    expected_counts: tuple[int, int, int] | None = None
    expected_patients: int | None = None
    folds_digest: str | None = None
    normal_class: str = ""
    download: str = ""


CONFIGS = [
    BusConfig(
        name="phantom",
        description="Procedural ultrasound phantoms; needs no download.",
        source="phantom",
        version=_PHANTOM_VERSION,
    ),
    BusConfig(
        name="curated_busi",
        description="BUSI without any member of its 149 groups of near-duplicates.",
        source="busi",
        curated=True,
        expected_counts=(222, 164, 64),
        folds_digest="60fe3da6036a23995d48c698ca0068d27f92ccb437bc29f3cedfd0899af4d90a",
    ),
    BusConfig(
        name="busi",
        description="BUSI as published, 780 images.",
        source="busi",
        expected_counts=(437, 210, 133),
        folds_digest="b1c0dd6269cc958bb7ec3ba5c76316639b7488f611da333532f19a2576a24acc",
    ),
    BusConfig(
        name="bus_uclm",
        description="BUS-UCLM as published, 683 images of 38 patients.",
        source="bus_uclm",
        expected_counts=(174, 90, 419),
        expected_patients=38,
        folds_digest="a6cf21d04f0e6dffb4095517cd3779759f270b2f44c43f1c648124448e4a90a2",
    ),
    BusConfig(
        name="folder",
        description="Your own pictures, from a folder in one of several layouts.",
        source="folder",
        version=FOLDER_VERSION,
    ),
    BusConfig(
        name="bus_bra",
        description="BUS-BRA as published, 1875 images of 1064 patients.",
        source="folder",
        version=_LIKE_FOLDER_VERSION,
        download="bus_bra",
        expected_counts=(1268, 607, 0),
        expected_patients=1064,
    ),
    BusConfig(
        name="breast_usg",
        description="BrEaST as published, 256 images of as many patients.",
        source="folder",
        version=_LIKE_FOLDER_VERSION,
        download="breast_usg",
        expected_counts=(154, 98, 4),
        expected_patients=256,
    ),
]
