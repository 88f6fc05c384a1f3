"""The rows of the league table: every network, also with each encoder that has weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.linen as nn

from mtbus_jax import models
from mtbus_jax.errors import UserError
from mtbus_jax.models import weights


@dataclasses.dataclass(frozen=True)
class Entry:
    """A network with one choice of encoder and first weights.

    Attributes:
      name: of the row and part of its runs' names, such as ``lite_unet_lite1_imagenet``.
      model: a key of `models.REGISTRY`.
      encoder: named explicitly, or "" for the network's own or none.
      encoder_weights: see `weights.find`; "" draws them; None for a network without such an option.
    """

    name: str
    model: str
    encoder: str = ""
    encoder_weights: str | None = None

    @property
    def options(self) -> dict[str, str]:
        """The network's options by field of ``config.model``; all others are the network's own."""
        options = {"name": self.model}
        if self.encoder:
            options["encoder"] = self.encoder
        if self.encoder_weights is not None:
            options["encoder_weights"] = self.encoder_weights
        return options

    @property
    def origin(self) -> str:
        """Origin of its first weights, "ImageNet" or "drawn"."""
        return "ImageNet" if self.encoder_weights else "drawn"


def all_entries(files: Mapping[str, str]) -> tuple[Entry, ...]:
    """Every network of the registry with drawn weights, then with each encoder that has weights.

    Args:
      files: files of encoder weights, by the encoder's name; weights without a file are looked for
        among the installed packages.

    Raises:
      UserError: if a file is given for an encoder that no network has.
    """
    found, encoders = [], []
    for model, network in models.REGISTRY.items():
        if not hasattr(network, "encoder_weights"):
            found.append(Entry(model, model))
            continue
        found.append(Entry(model, model, encoder_weights=""))
        for encoder, is_option in _encoders(network):
            encoders.append(encoder)
            found.append(
                Entry(
                    f"{model}_{encoder}_imagenet",
                    model,
                    encoder if is_option else "",
                    files.get(encoder, weights.IMAGENET),
                )
            )
    unknown = sorted(files.keys() - set(encoders))
    if unknown:
        raise UserError(
            f"--weights={unknown[0]}=…: no network has this encoder. Known: {', '.join(encoders)}."
        )
    return tuple(found)


def _encoders(network: type[nn.Module]) -> list[tuple[str, bool]]:
    """Names of a network's encoders, and whether the name is an option of the network."""
    if any(field.name == "encoder" for field in dataclasses.fields(network)):
        return [(encoder, True) for encoder in weights.PACKAGES]
    return [(network.encoder, False)]


def choose(entries: tuple[Entry, ...], names: tuple[str, ...]) -> tuple[Entry, ...]:
    """Selects entries by name; a network's name selects all its entries; () selects all.

    Raises:
      UserError: for an unknown name.
    """
    for name in names:
        if name not in {text for entry in entries for text in (entry.name, entry.model)}:
            known = ", ".join(entry.name for entry in entries)
            raise UserError(f"--networks={name}: there is no such row. Known: {known}.")
    if not names:
        return entries
    return tuple(entry for entry in entries if entry.name in names or entry.model in names)


def read_files(pairs: tuple[str, ...]) -> dict[str, str]:
    """Files by encoder, from texts such as ``resnet18=FILE``.

    Raises:
      UserError: for a text of another form.
    """
    found = {}
    for pair in pairs:
        encoder, equals, file = pair.partition("=")
        if not (encoder and equals and file):
            raise UserError(f"--weights={pair}: give ENCODER=FILE, such as resnet18=resnet18.pth.")
        found[encoder] = file
    return found
