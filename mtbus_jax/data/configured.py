"""From a configuration to the images that it names."""

from __future__ import annotations

from ml_collections import config_dict

from mtbus_jax.data import arrays
from mtbus_jax.types import Cases


def load_configured(config: config_dict.ConfigDict) -> Cases:
    """The images that a configuration names.

    Raises:
      UserError: if they are not to be had.
    """
    image_size = tuple(config.data.image_size)
    if config.data.arrays_file:
        cases = arrays.load_arrays(
            config.data.arrays_file,
            name=config.data.name,
            image_size=image_size,
            resize=config.data.resize,
        )
    else:
        cases = arrays.load_cases(
            config.data.name,
            image_size=image_size,
            resize=config.data.resize,
            data_dir=config.data.data_dir or None,
            manual_dir=config.data.manual_dir or None,
            cache_dir=config.data.cache_dir or None,
        )
    return arrays.only_classes(cases, tuple(config.data.classes))
