"""The page's text about its network: an export's model card, adapted to the page."""

from __future__ import annotations

from mtbus_jax import models
from mtbus_jax.export.web import card_text
from mtbus_jax.export.web.contents import Contents
from mtbus_jax.images import enhancement
from mtbus_jax.training.trained_folds import Trained

WEIGHTS_IN_WORDS = {"int16": "as 16-bit integers with a scale per channel", "float32": "in full"}


def about(trained: Trained, contents: Contents, measured: list[str]) -> str:
    """HTML about model, data, figures, use and citation.

    Args:
      trained: the original networks.
      contents: networks and facts of the page.
      measured: Markdown lines on data and figures, see `source.about`.
    """
    lines = [
        *_model(trained, contents),
        *measured,
        *_page(contents),
    ]
    return card_text.to_html(lines)


def _model(trained: Trained, contents: Contents) -> list[str]:
    height, width = trained.image_size
    config, count = trained.config, len(trained.members)
    parameters = models.parameter_count(trained.variables[0]["params"])
    folds = ", ".join(map(str, trained.folds))
    copies = f", {count} copies whose probabilities are averaged" if count > 1 else ""
    plural = "s" if len(trained.folds) > 1 else ""
    versions = len(contents.facts["versions"])
    seen = ""
    if versions > 1:
        seen = f" Each network sees {versions} versions of it: as it is, and flipped or turned."
    enhanced = ""
    if config.data.enhancement != enhancement.NONE:
        enhanced = "equalised (multi-peak histogram equalisation), then "
    packages = ", ".join(f"{name} {version}" for name, version in contents.versions.items())
    return [
        "## Model",
        "",
        f"Network `{config.model.name}`; {parameters:,} parameters{copies} (fold{plural} {folds}). "
        f"A picture is {enhanced}resized to {height} × {width} pixels.{seen}",
        "",
        f"Weights are stored {WEIGHTS_IN_WORDS[contents.weights]}. The networks in this page were "
        f"compared with the original on {contents.checked_on}: no probability differed by more "
        f"than {contents.difference:.1g} ({packages}).",
        "",
    ]


def _page(contents: Contents) -> list[str]:
    lines = [
        "## About this page",
        "",
        "- JPEG pictures are decoded by the browser, whose values can differ by one or two of 255 "
        "from those of other decoders.",
    ]
    if contents.facts["trust"]:
        lines.append(
            "- Probabilities, uncertainty and warnings are calibrated on validation images of the "
            "same dataset; on other pictures they can be wrong."
        )
    else:
        lines.append("- Probabilities are the network's own: not calibrated.")
    return [*lines, ""]
