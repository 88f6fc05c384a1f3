"""TFDS builder of the breast-ultrasound datasets phantom, curated_busi, busi and bus_uclm."""

import importlib.util
import pathlib
import sys

# `tfds build tfds_busi` imports this folder by itself; in a checkout that is not installed, the
# library then lies next to it.
if importlib.util.find_spec("mtbus_jax") is None:
    sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))
