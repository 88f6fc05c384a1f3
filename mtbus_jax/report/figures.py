"""What the figures of ``summary.json`` are called and what they mean, in words for a reader."""

from __future__ import annotations

import dataclasses

from mtbus_jax import types

SEGMENTATION, CLASSIFICATION, BOTH = "Segmentation", "Classification", "Mask and class together"


@dataclasses.dataclass(frozen=True)
class Meaning:
    """Of one figure.

    Attributes:
      title: its name.
      group: the part of the table it belongs to.
      text: what it is, in a sentence.
      better: ``higher`` or ``lower``.
      share: whether it lies between 0 and 1, so that figures can be drawn on one scale.
    """

    title: str
    group: str
    text: str
    better: str = "higher"
    share: bool = True

    @property
    def sentence(self) -> str:
        """What it is, and which way is better."""
        return f"{self.text} {self.better.capitalize()} is better."


def _distance(title: str, text: str) -> Meaning:
    text += " In pixels of the network's input; undefined where a mask is empty and the other not."
    return Meaning(title, SEGMENTATION, text, better="lower", share=False)


_NAMES = types.CLASS_NAMES

MEANINGS: dict[str, Meaning] = {
    "dsc_average": Meaning(
        "DSC, all images",
        SEGMENTATION,
        "Mean Dice similarity over all images, 2|A∩B| / (|A|+|B|); two empty masks agree.",
    ),
    **{
        f"dsc_{name}": Meaning(f"DSC, {name}", SEGMENTATION, f"Mean Dice over the {name} images.")
        for name in _NAMES
    },
    "jaccard": Meaning("Jaccard", SEGMENTATION, "Intersection over union, |A∩B| / |A∪B|."),
    "recall": Meaning(
        "Recall",
        SEGMENTATION,
        "Share of the lesion's pixels that are found; a missed one counts 0.",
    ),
    "precision": Meaning("Precision", SEGMENTATION, "Share of the marked pixels that are lesion."),
    "specificity": Meaning(
        "Specificity", SEGMENTATION, "Share of the background's pixels left unmarked."
    ),
    "hausdorff": _distance("Hausdorff", "Largest distance from one outline to the other."),
    "hausdorff95": _distance("Hausdorff 95 %", "The same, without the largest 5 % of distances."),
    "average_surface_distance": _distance(
        "Average surface distance", "Mean distance between the outlines, both ways."
    ),
    "acc": Meaning("Accuracy", CLASSIFICATION, "Share of the images with the right class."),
    "f1_weighted": Meaning(
        "F1, weighted", CLASSIFICATION, "Mean of the classes' F1, weighted by their images."
    ),
    **{
        f"f1_{name}": Meaning(
            f"F1, {name}", CLASSIFICATION, f"Harmonic mean of precision and recall for {name}."
        )
        for name in _NAMES
    },
    **{
        f"auc_{name}": Meaning(
            f"AUC, {name}", CLASSIFICATION, f"Area under the ROC curve, {name} against the rest."
        )
        for name in _NAMES
    },
    "incoherent_ratio": Meaning(
        "Incoherent",
        BOTH,
        "Share of the images whose mask and class disagree on whether there is a lesion.",
        better="lower",
    ),
}

# How the kinds of results in ``summary.json`` are called.
KINDS = {"raw": "raw", "refined": "refined"}
