"""Names and explanations, for readers, of the figures in ``summary.json``."""

from __future__ import annotations

import dataclasses

SEGMENTATION, CLASSIFICATION, BOTH = "Segmentation", "Classification", "Mask and class together"


@dataclasses.dataclass(frozen=True)
class Meaning:
    """Name and explanation of one figure.

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
        """The explanation, and whether higher or lower is better."""
        return f"{self.text} {self.better.capitalize()} is better."


def _distance(title: str, text: str) -> Meaning:
    text += " In pixels of the network's input; undefined where only one mask is empty."
    return Meaning(title, SEGMENTATION, text, better="lower", share=False)


_FIXED = {
    "dsc_average": Meaning(
        "DSC average",
        SEGMENTATION,
        "Mean Dice similarity over all images, 2|A∩B| / (|A|+|B|); two empty masks agree.",
    ),
    "jaccard": Meaning("Jaccard", SEGMENTATION, "Intersection over union, |A∩B| / |A∪B|."),
    "hausdorff": _distance(
        "Hausdorff (px)", "Largest distance of a pixel of one mask to the other mask."
    ),
    "hausdorff95": _distance(
        "Hausdorff 95 % (px)",
        "Distance to the other outline that 95 % of an outline's pixels do not exceed (HD95: the "
        "larger of both directions).",
    ),
    "average_surface_distance": _distance(
        "Average surface distance (px)",
        "Mean distance between the outlines, both directions pooled (ASD, symmetric).",
    ),
    "recall": Meaning(
        "Recall",
        SEGMENTATION,
        "Share of the lesion's pixels that are found; a missed one counts 0.",
    ),
    "precision": Meaning("Precision", SEGMENTATION, "Share of the marked pixels that are lesion."),
    "specificity": Meaning(
        "Specificity", SEGMENTATION, "Share of the background's pixels left unmarked."
    ),
    "acc": Meaning("Accuracy", CLASSIFICATION, "Share of the images with the right class."),
    "f1_weighted": Meaning(
        "F1 weighted", CLASSIFICATION, "Mean of the classes' F1, weighted by their images."
    ),
    "incoherent_ratio": Meaning(
        "Incoherent ratio",
        BOTH,
        "Share of the images whose mask and class disagree on whether there is a lesion.",
        better="lower",
    ),
}
_PER_CLASS = {
    "dsc_": ("DSC", SEGMENTATION, "Mean Dice over the {} images."),
    "f1_": ("F1", CLASSIFICATION, "Harmonic mean of precision and recall for {}."),
    "sensitivity_": ("Sensitivity", CLASSIFICATION, "Share of the {} images that are recognised."),
    "specificity_": (
        "Specificity",
        CLASSIFICATION,
        "Share of other classes' images not called {}.",
    ),
    "precision_": ("Precision", CLASSIFICATION, "Share of the images called {} that really are."),
    "auc_": ("AUC", CLASSIFICATION, "Area under the ROC curve, {} against the rest."),
}
# Mask metrics that a summary averages, in its order.
MASK_METRICS = tuple(
    name for name, each in _FIXED.items() if each.group == SEGMENTATION and name != "dsc_average"
)
# Names that no class may have, because figures use them: "dsc_average", "f1_weighted".
RESERVED = ("average", "weighted")


def meaning(name: str) -> Meaning:
    """Name and explanation of a figure such as ``acc`` or ``dsc_benign``.

    Raises:
      KeyError: for a name that no summary has.
    """
    if name in _FIXED:
        return _FIXED[name]
    for prefix, (title, group, text) in _PER_CLASS.items():
        if name.startswith(prefix):
            class_name = name.removeprefix(prefix)
            return Meaning(f"{title} {class_name}", group, text.format(class_name))
    raise KeyError(name)


# Names of the kinds of results in ``summary.json``.
KINDS = {"raw": "raw", "refined": "refined"}
