"""``summary.md`` of an external test."""

from __future__ import annotations

from typing import Any

from mtbus_jax.escaping import markdown, markdown_table
from mtbus_jax.evaluation.markdown import confusion_table, image_counts
from mtbus_jax.evaluation.trust.measure import ERROR_TITLES, KEPT
from mtbus_jax.metrics.meaning import meaning


def to_markdown(content: dict[str, Any]) -> str:
    """``summary.md`` from the content of ``summary.json``."""
    height, width = content["image_size"]
    kinds = list(content["results"])
    titles = {"raw": "raw", "refined": "refined (PR)"}
    matched = (
        "Grey values were matched to the distribution of the training dataset. This uses all "
        "tested pictures together, but not their masks or classes. "
        if content["intensity_matched"]
        else ""
    )
    origin = [
        f"**The first weights came from {markdown(run)}, which is no longer there.** Whether that "
        "run was trained on these pictures is unknown.\n"
        for run in content["unknown_origin"]
    ]
    if content["left_out"]:
        origin.append(f"{content['left_out']} pictures that the run was trained on are left out.\n")
    for run in content["known_by_name_alone"]:
        origin.append(
            f"**The pictures of {markdown(run)} are known by the dataset's name alone:** it has no "
            "digests of them, or computed them in another way. A copy under another name would not "
            "have been noticed.\n"
        )
    figures = {kind: content["results"][kind] for kind in kinds}
    rows = [
        [
            meaning(name).title,
            *(_interval(figures[kind].get(name)) for kind in kinds),
            image_counts([[figures[kind][name]["n"]] for kind in kinds if name in figures[kind]]),
        ]
        for name in figures["raw"]
    ]
    lines = [
        f"# {markdown(content['name'])}, trained on {markdown(content['trained_on'])}, tested on "
        f"{markdown(content['dataset'])}",
        "",
        *origin,
        f"{content['images']} images of {content['groups']} groups (patients or near-duplicates) "
        f"at {height} × {width} pixels; the mean of {content['predictions_per_image']} predictions "
        f"per image, from the networks of fold {', '.join(map(str, content['folds']))}. {matched}"
        "Whether the two datasets share patients is not known here.",
        "",
        f"In brackets: {100 * content['level']:.0f} % intervals from a bootstrap over groups.",
        "",
        *markdown_table(["", *(titles[kind] for kind in kinds), "images"], rows),
    ]
    for kind, counts in content["confusion_counts"].items():
        lines += ["", *confusion_table(kind, counts, content["class_names"])]
    if content.get("risk"):
        share = round(100 * (1 - KEPT))
        table = [
            [ERROR_TITLES[name], f"{found['all']:.3f}", f"{found['kept']:.3f}"]
            for name, found in content["risk"].items()
        ]
        lines += [
            "",
            f"Mean error of the answers of `mtbus predict` (refining: {content['refining']}), and "
            f"without the {share} % that are the most uncertain:",
            "",
            *markdown_table(["error", "all", f"without {share} %"], table),
        ]
    return "\n".join([*lines, "", "Research software, not a medical device.", ""])


def _interval(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return ""
    if not figure["n"]:
        return "undefined"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"
