"""Remarks that a reader needs before the figures of a run, for ``summary.md`` and the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from mtbus_jax.training import run_splits


class Remark(NamedTuple):
    """One thing to know.

    Attributes:
      title: a few words; "" for a remark that is not a warning.
      text: sentences, with names of fields and files in backquotes.
      items: a list to show below the text, such as the fields that differ.
    """

    title: str
    text: str
    items: tuple[str, ...] = ()


def remarks(result: dict[str, Any]) -> Iterator[Remark]:
    """All remarks on the content of ``summary.json``, the most serious first."""
    if leaking := result["leaking_test_images"]:
        yield Remark(
            "Leak",
            f"{leaking} of {result['test_images']} test images share a patient or a group of "
            "near-duplicates with training or validation images of their fold. "
            "`--config.data.split=grouped` avoids it.",
        )
    if shared := result.get("leaking_validation_images"):
        yield Remark(
            "Validation",
            f"{shared} of {result.get('validation_images')} validation images share a patient or a "
            "group with training images of their fold. What is chosen and fitted on them, such as "
            "trust, is then too optimistic.",
        )
    if reason := result.get("not_compared"):
        yield Remark(
            "Near-duplicates are unknown",
            f"They were not looked for ({reason}), so the same lesion may be in training and test "
            "images. A column `group` in `manifest.csv` keeps images together.",
        )
    if result["split"] == run_splits.CUSTOM:
        yield Remark(
            "A split of your own",
            f"`{run_splits.SPLITS}` has other folds than the published, given or grouped ones: it "
            "was edited, or the folds file was changed afterwards.",
        )
    if not result["results"]:
        yield Remark(
            "Nothing was tested",
            "No image was left out of training, so there is no figure for how good these weights "
            "are. Test them on other images.",
        )
    elif result.get("validation_images") == 0:
        yield Remark(
            "No validation images", "Each fold trained on every image that it does not test."
        )
    if unused := result.get("unused_images"):
        yield Remark(
            "A part of the dataset",
            f"{unused} images, counted once for each fold, are in none of the fold's lists in "
            f"`{run_splits.SPLITS}`.",
        )
    if differing := result.get("differing_settings"):
        yield Remark(
            "Folds trained differently",
            "The mean mixes folds of different recipes. What differs:",
            tuple(differing),
        )
    if started := result.get("started_from"):
        yield Remark(
            "Weights of another run",
            f"Training started from the weights of the run `{started}` and what they had learned.",
        )
    departures = result["departures_from_published_recipe"]
    if result["results"] and departures is None:
        yield Remark("", "No figures are published for this dataset.")
    elif result["results"] and departures:
        yield Remark(
            "Not the published recipe",
            "The published figures are not a fair comparison for this run. What differs:",
            tuple(departures),
        )
