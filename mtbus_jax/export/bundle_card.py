"""The model card of a bundle: what the network is, what it was trained on, how good it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import config_dict

import mtbus_jax
from mtbus_jax import models
from mtbus_jax.export import card, remake
from mtbus_jax.training import config_hash, trained_folds


class Rounding(NamedTuple):
    """How storing parameters as float16 changes the output, over all images of the dataset.

    Attributes:
      images: number of images compared.
      probability: largest difference of a pixel's or a class's probability.
      pixels: share of pixels whose mask value changes.
      classes: number of images whose predicted class changes.
    """

    images: int
    probability: float
    pixels: float
    classes: int


def text(
    trained: trained_folds.Trained,
    tested: trained_folds.Trained,
    results: list[dict[str, Any]],
    images: int,
    rounding: Rounding,
    *,
    evidence: Sequence[config_dict.ConfigDict] = (),
) -> str:
    """The text of ``model_card.md``.

    Args:
      trained: the networks in the bundle.
      tested: the networks that the figures were measured with.
      results: what `summary.summarise` returned, one for each tested run.
      images: number of images in the dataset.
      rounding: what float16 changes.
      evidence: configurations of the tested runs; none if ``trained`` was tested itself.
    """
    config, own = trained.config, not evidence
    height, width = trained.image_size
    count = models.parameter_count(trained.variables[0]["params"])
    lines = [
        f"# Model card: {config.name}",
        "",
        "**Research software, not a medical device.** Do not use its output for diagnosis or "
        "treatment.",
        "",
        "## Model",
        "",
        f"{len(trained.members)} × `{config.model.name}`, {count:,} parameters; input {height} × "
        f"{width} pixels; classes {', '.join(trained.classes.names)}. Bundled by mtbus_jax "
        f"{mtbus_jax.__version__}.",
        "",
        f"Parameters are kept as float16. Over the {rounding.images} images of the dataset this "
        f"moves a probability by at most {rounding.probability:.1e}, "
        f"{100 * rounding.pixels:.4f} % of the pixels to the other side of the mask, and changes "
        f"the class of {rounding.classes} images.",
        "",
        card.DATA,
        "",
        f"`{Path(config.data.name).name}`, {images} images. "
        + (
            "Each network was trained on the training images of its fold."
            if own
            else "The network was trained on all of them."
        ),
        "",
    ]
    if not own:
        lines += [
            "The figures below are of the same recipe, cross-validated, each network trained on a "
            "part of the images and tested on others. The network in this folder has none of its "
            "own, since it has seen every image. Its trust is fitted on the predictions behind "
            "these figures.",
            "",
        ]
    for result in results:
        heading, _, *section = card.figures_section(tested, result, joined=own)
        lines += [f"{heading}, {result['split']} split", ""]
        leaking = result["leaking_test_images"]
        if leaking:
            lines += [
                f"**Leak:** {leaking} of {result['test_images']} test images share a patient or a "
                "group of near-duplicates with training or validation images of their fold, so "
                "these figures may be too good.",
                "",
            ]
        lines += section
    lines += [
        "## Limits",
        "",
        "- One dataset; other devices, centres and populations are untested.",
        f"- A picture is squeezed to {height} × {width} pixels whatever its shape. Crop away text "
        "and borders as the training images are.",
        "- It answers for every picture, also for one that shows no breast.",
        "",
    ]
    lines += _making(trained, results, evidence)
    return "\n".join(lines + card.citation_section(trained))


def _making(
    trained: trained_folds.Trained,
    results: list[dict[str, Any]],
    evidence: Sequence[config_dict.ConfigDict],
) -> list[str]:
    """The section with the commands that make the bundle, as Markdown lines."""
    config, folds = trained.config, ()
    if results and not evidence and len(trained.folds) < results[0]["folds_of_split"]:
        folds = trained.folds
    lines = remake.commands(config, "runs/network", folds)
    runs = [f"runs/tested_{number}" for number in range(1, len(evidence) + 1)]
    for each, run in zip(evidence, runs, strict=True):
        lines += remake.commands(each, run)
    tested = f" --evidence {' '.join(runs)}" if runs else ""
    return [
        "## Making it again",
        "",
        "```",
        *lines,
        f"mtbus bundle --run=runs/network{tested} --out=network",
        "```",
        "",
        f"Configuration hash of the network: {config_hash.of(config.to_dict())}. The commands are "
        f"for mtbus_jax {mtbus_jax.__version__}; add the folders of the data. On another processor "
        "the rounding differs, and the trained network with it, as much as with another seed.",
        "",
    ]
