"""Finds the raw data: in the user's folder, in TFDS's own folder, or by download."""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
from typing import Any

import requests

from mtbus_jax.errors import UserError
from tfds_busi import raw

BUSI_URL = "https://scholar.cu.edu.eg/Dataset_BUSI.zip"
BUSI_SHA256 = "b2ce09f6063a31a73f628b6a6ee1245187cbaec225e93e563735691d68654de7"
# As the dataset's authors give it (github.com/noeliavallez/BUS-UCLM-Dataset). No checksum is
# published; file names, counts, patients and the fold digest are checked instead.
BUS_UCLM_URL = (
    "https://prod-dcd-datasets-cache-zipfiles.s3.eu-west-1.amazonaws.com/7fvgj4jsp7-1.zip"
)
BUS_UCLM_PAGE = "https://data.mendeley.com/datasets/7fvgj4jsp7"

INSTRUCTIONS = {
    "busi": (
        f"Download {BUSI_URL} (BUSI, Al-Dhabyani et al. 2020) and pass the folder that holds "
        "the zip, under any name, or the unpacked Dataset_BUSI_with_GT/"
    ),
    "bus_uclm": (
        f"Download the zip of {BUS_UCLM_PAGE} (BUS-UCLM, Vallez et al. 2025; 'Download all') and "
        "pass the folder that holds it, under any name, or the unpacked folder with INFO.csv, "
        "images/ and masks/"
    ),
}
_FIND = {"busi": raw.find_busi, "bus_uclm": raw.find_bus_uclm}
_READ = {"busi": raw.read_busi, "bus_uclm": raw.read_bus_uclm}
_URL = {"busi": BUSI_URL, "bus_uclm": BUS_UCLM_URL}
_TIMEOUT_S = 10


def records(
    source: str, config_name: str, manual_dir: pathlib.Path | None, dl_manager: Any
) -> list[raw.Record]:
    """Every image of a raw download, in the published order.

    A folder that the user names must hold the data: there is no download in its place.

    Args:
      source: ``busi`` or ``bus_uclm``.
      config_name: named in the instructions when the data is missing.
      manual_dir: the folder the user named, or None.
      dl_manager: TFDS's download manager, for its default folder, then for the download.

    Raises:
      UserError: if data is missing, with what to fetch, from where, and where to put it; or if the
        data that is there is wrong.
    """
    if manual_dir is not None:
        found = _FIND[source](manual_dir)
        if found is None:
            raise _missing(source, config_name, f"{manual_dir} does not hold it")
        return _READ[source](found)
    with contextlib.suppress(AssertionError):  # TFDS: the folder does not exist or is empty
        found = _FIND[source](pathlib.Path(dl_manager.manual_dir))
        if found is not None:
            return _READ[source](found)
    archive = _download(source, config_name, dl_manager)
    found = _FIND[source](archive)
    if found is None:
        reason = f"{archive}, downloaded from {_URL[source]}, does not hold it"
        raise _missing(source, config_name, reason)
    return _READ[source](found)


def _download(source: str, config_name: str, dl_manager: Any) -> pathlib.Path:
    url = _URL[source]
    try:
        # TFDS tries an unreachable address for minutes; this gives up after ten seconds.
        with requests.get(url, stream=True, timeout=_TIMEOUT_S) as response:
            response.raise_for_status()
        archive = pathlib.Path(dl_manager.download(url))
    except Exception as error:  # no common base class among what a download may raise
        reason = f"{url} could not be downloaded ({type(error).__name__})"
        raise _missing(source, config_name, reason) from error
    if source == "busi":
        with archive.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != BUSI_SHA256:
            raise UserError(
                f"{archive}, downloaded from {url}, is not the published file: its SHA-256 is "
                f"{sha256}, not {BUSI_SHA256}. Delete it and build again."
            )
    return archive


def _missing(source: str, config_name: str, reason: str) -> UserError:
    return UserError(
        f"The raw data of {config_name} is missing: {reason}. {INSTRUCTIONS[source]}, as "
        f"`tfds build tfds_busi --config={config_name} --manual_dir=FOLDER` or, to build on first "
        "use, `python main.py --config.data.manual_dir=FOLDER ...`."
    )
