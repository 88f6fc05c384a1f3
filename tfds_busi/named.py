"""Public datasets that are read like folders: BUS-BRA and BrEaST, as downloaded.

Each function of `FINDERS` looks for its dataset below a folder, unpacked or in a zip file, and
lists it. The layouts are those that the datasets' documentation describes.
"""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
from collections.abc import Callable, Iterator

from mtbus_jax.errors import UserError
from mtbus_jax.types import NO_FOLD
from tfds_busi import columns, layouts, listing, search

INSTRUCTIONS = {
    "bus_bra": (
        "Download BUSBRA.zip of https://doi.org/10.5281/zenodo.8231412 (BUS-BRA, Gómez-Flores et "
        "al. 2024) and pass the folder that holds it, under any name, or the unpacked BUSBRA/"
    ),
    "breast_usg": (
        "Download images and masks, and the table with the clinical data, of "
        "https://doi.org/10.7937/9WKK-Q141 (BrEaST, Pawłowska et al. 2024) and pass the folder "
        "that holds both, zipped or unpacked"
    ),
}
# Unpacked, BUS-BRA has 135 MB and BrEaST 60 MB.
_MOST_BYTES = 2 * 10**9
_TABLES = (".csv", ".xlsx")


@contextlib.contextmanager
def opened(name: str, manual_dir: pathlib.Path) -> Iterator[listing.Listing]:
    """The dataset's listing; files that had to be unpacked exist only within the block.

    Args:
      name: a key of `FINDERS`.
      manual_dir: the folder that the user named, or a zip file.

    Raises:
      UserError: if the dataset is missing or incomplete.
    """
    with tempfile.TemporaryDirectory(prefix="mtbus_jax_") as folder:
        found = FINDERS[name](pathlib.Path(manual_dir), pathlib.Path(folder))
        if found is None:
            raise UserError(
                f"The raw data of {name} is missing: {manual_dir} does not hold it. "
                f"{INSTRUCTIONS[name]}, as `tfds build tfds_busi --config={name} "
                "--manual_dir=FOLDER` or, to build on first use, `python main.py "
                f"--config.data.name={name} --config.data.manual_dir=FOLDER ...`."
            )
        yield found


def _bus_bra(root: pathlib.Path, scratch: pathlib.Path) -> listing.Listing | None:
    """``Images/bus_0001-l.png``, ``Masks/mask_0001-l.png``, ``bus_data.csv``, ``5-fold-cv.csv``."""

    def looks_right(folder: search.RawPath) -> bool:
        return all(folder.joinpath(name).exists() for name in ("Images", "Masks", "bus_data.csv"))

    found = search.find(root, looks_right, ("busbra", "bus-bra", "bus_bra"))
    return None if found is None else layouts.read(_on_disk(found, scratch))


def _breast_usg(root: pathlib.Path, scratch: pathlib.Path) -> listing.Listing | None:
    """``case001.png`` and its masks in one folder, and a table that may lie beside that folder."""

    def looks_right(folder: search.RawPath) -> bool:
        return folder.joinpath("case001.png").exists()

    def has_table(folder: search.RawPath) -> bool:
        return any(path.name.lower().endswith(_TABLES) for path in search.visible(folder))

    found = search.find(root, looks_right, ("breast",))
    if found is None:
        return None
    folder = _on_disk(found, scratch / "pictures")
    places = [folder]
    beside = search.find(root, has_table, ())
    if beside is not None:
        places.append(_on_disk(beside, scratch / "table", endings=_TABLES))
    tables = (path for place in places for path in sorted(search.visible(place)))
    for path in tables:
        if path.suffix.lower() not in _TABLES:
            continue
        names, rows = columns.read_table(path)
        if {"image_filename", "mask_tumor_filename", "classification"} <= set(names):
            entries = [_breast_entry(folder, path, line, cells) for line, cells in rows]
            return listing.finished(folder, "", f"BrEaST with {path.name}", entries)
    raise UserError(
        f"{root} holds the pictures of BrEaST, but not its table, a file with the columns "
        f"Image_filename, Mask_tumor_filename and Classification. {INSTRUCTIONS['breast_usg']}."
    )


def _breast_entry(
    folder: pathlib.Path, table: pathlib.Path, line: int, cells: dict[str, str]
) -> listing.Entry:
    def file(name: str) -> pathlib.Path:
        path = folder / pathlib.PurePath(name).name
        if not path.is_file():
            raise UserError(f"{table}, line {line}: {path} is not there.")
        return path

    image = file(cells["image_filename"])
    masks = [name.strip() for name in cells["mask_tumor_filename"].split("&")]
    used = ("image_filename", "mask_tumor_filename", "classification", "caseid")
    return listing.Entry(
        uid=image.stem,
        image=image,
        # Without a mask file the cell is empty or says so in words; `finished` knows that a normal
        # picture has none.
        masks=tuple(file(name) for name in masks if name.lower().endswith(".png")) or None,
        label=cells["classification"],
        group=cells.get("caseid", ""),
        test_fold=NO_FOLD,
        about={name: cell for name, cell in cells.items() if cell and name not in used},
    )


# Functions that find a dataset below a folder; the second argument is a folder to unpack into.
FINDERS: dict[str, Callable[[pathlib.Path, pathlib.Path], listing.Listing | None]] = {
    "bus_bra": _bus_bra,
    "breast_usg": _breast_usg,
}


def _on_disk(
    folder: search.RawPath, target: pathlib.Path, endings: tuple[str, ...] = ("",)
) -> pathlib.Path:
    """A folder as it is, or unpacked into ``target`` if it lies in a zip file.

    Raises:
      UserError: if it would take more room than such a dataset does.
    """
    if isinstance(folder, pathlib.Path):
        return folder
    room = _MOST_BYTES
    waiting = [(folder, target)]
    while waiting:
        source, place = waiting.pop()
        place.mkdir(parents=True, exist_ok=True)
        for path in search.visible(source):
            if path.is_dir():
                waiting.append((path, place / path.name))
            elif path.name.lower().endswith(endings):
                with path.open("rb") as file:
                    content = file.read(room + 1)
                room -= len(content)
                if room < 0:
                    raise UserError(f"{folder} unpacks to more than {_MOST_BYTES:,} bytes.")
                (place / path.name).write_bytes(content)
    return target
