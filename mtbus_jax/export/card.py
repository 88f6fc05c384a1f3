"""What goes with an exported model: ``preprocessing.json`` and ``model_card.md``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mtbus_jax
from mtbus_jax import models, types
from mtbus_jax.evaluation.markdown import plus_minus
from mtbus_jax.export import interface
from mtbus_jax.export.formats import BATCH_SIZES, TOLERANCE, Written
from mtbus_jax.images import enhancement, preprocess
from mtbus_jax.metrics.meaning import meaning
from mtbus_jax.models import weights
from mtbus_jax.training.trained_folds import Trained

MADE_BY = "mtbus_jax.export"
# Resizing by the value of `data.resize`.
_RESIZING = {
    preprocess.NEAREST: "by nearest neighbour, source index = floor(index * (1 / (target size / "
    "source size))) in double precision, rows and columns alike; no interpolation, no cropping",
    preprocess.AREA: "each pixel the mean over the area that it covers, pixels covered in part "
    "counting in part, rounded half up; no cropping",
}
# Heading of a card's first section that is not about the model itself.
DATA = "## Data"
# Weights by the value of `train.keep`, as a card names them.
_KEPT = {"best": "best", "last": "last", "average": "averaged"}

# References for the method, and for datasets by name.
_CITATIONS = {
    "method": "Aumente-Maestro, Díez, Remeseiro: A multi-task framework for breast cancer "
    "segmentation and classification in ultrasound imaging. Computer Methods and Programs in "
    "Biomedicine 260, 108540 (2025), doi 10.1016/j.cmpb.2024.108540.",
    "busi": "Al-Dhabyani, Gomaa, Khaled, Fahmy: Dataset of breast ultrasound images. Data in Brief "
    "28, 104863 (2020), doi 10.1016/j.dib.2019.104863.",
    "bus_uclm": "Vallez, Bueno, Deniz, Rienda, Pastor: BUS-UCLM: Breast ultrasound lesion "
    "segmentation dataset. Scientific Data 12, 242 (2025), doi 10.1038/s41597-025-04562-3.",
}
_CITATIONS["curated_busi"] = _CITATIONS["busi"]
# What is known about the licence of a dataset, by its name; see tfds_busi/README.md.
_LICENCES = {
    "busi": "BUSI: the article that publishes it is under CC BY 4.0; for the download itself we "
    "found none. MedMNIST passes its images on, small, under CC BY 4.0.",
    "bus_uclm": "BUS-UCLM: its authors' repository "
    "(https://github.com/noeliavallez/BUS-UCLM-Dataset) states CC BY-NC 4.0, which excludes "
    "commercial use. Mendeley Data states a licence for each version of the download; read it "
    "there (doi 10.17632/7fvgj4jsp7).",
}
_LICENCES["curated_busi"] = f"Curated BUSI is a selection of BUSI. {_LICENCES['busi']}"


def preprocessing(trained: Trained, files: list[Written]) -> dict[str, Any]:
    """The content of ``preprocessing.json``: every step before and after the model.

    Args:
      trained: the exported networks.
      files: the model files.
    """
    height, width = trained.image_size
    outputs = {
        interface.TUMOUR: {
            "shape": ["batch", height, width, 1],
            "meaning": "probability of tumour per pixel",
        },
        interface.CLASSES: {
            "shape": ["batch", len(trained.classes)],
            "meaning": "probability per class, in the order of class_names",
        },
    }
    return {
        "made_by": MADE_BY,
        "version": mtbus_jax.__version__,
        "notice": "Research software, not a medical device.",
        "run": trained.config.name,
        "folds": list(trained.folds),
        "files": [each.name for each in files],
        "image_size": {"height": height, "width": width},
        "resize": trained.config.data.resize,
        "enhancement": trained.config.data.enhancement,
        "steps": [
            "decode to 8 bits a channel; ignore an alpha channel",
            "colour to grey by ITU-R 601 luma: (9797 R + 19234 G + 3737 B) >> 15",
            *_enhancing(trained.config.data.enhancement),
            f"resize to image_size {_RESIZING[trained.config.data.resize]}",
            "float32 grey values 0..255, no normalisation",
        ],
        "input": {
            "name": interface.IMAGE,
            "dtype": "float32",
            "shape": ["batch", height, width, 1],
            "range": [0, 255],
        },
        "outputs": {
            name: outputs[name] for name in interface.output_names(tuple(trained.config.tasks))
        },
        "class_names": list(trained.classes.names),
        "normal_class": _normal_class(trained.classes),
        "mask_threshold": types.MASK_THRESHOLD,
        "mask_rule": "tumour where the probability is greater than mask_threshold",
        "refine": trained.classes.normal is not None and bool(trained.config.eval.refine),
        "refining": _refining(trained),
        "mask_to_picture_size": "interpolate the probability linearly between the pixels that "
        "nearest-neighbour resizing takes, as masks were resized in training, constant beyond the "
        "last; then the mask rule",
    }


def _enhancing(method: str) -> list[str]:
    if method == enhancement.NONE:
        return []
    return [
        "multi-peak generalised histogram equalisation of the whole picture: `equalise_multi_peak` "
        "of enhancement.py, which says what it does"
    ]


def model_card(
    trained: Trained,
    files: list[Written],
    *,
    about: list[str],
    environment: dict[str, Any] | None,
    checked_on: str,
) -> str:
    """The text of ``model_card.md``.

    Args:
      trained: the exported networks.
      files: the model files.
      about: lines on data, figures, use and citation, see `source.about`.
      environment: content of ``environment.json``; None for a bundle, which has none.
      checked_on: description of the images on which the files were compared with the network.
    """
    lines = [
        f"# Model card: {trained.config.name}",
        "",
        "**Research software, not a medical device.** Do not use its output for diagnosis or "
        "treatment.",
        "",
        *_model(trained, files, environment, checked_on),
        *about,
    ]
    return "\n".join(lines)


def _model(
    trained: Trained, files: list[Written], environment: dict[str, Any] | None, checked_on: str
) -> list[str]:
    height, width = trained.image_size
    config, members, folds = trained.config, len(trained.members), len(trained.folds)
    count = models.parameter_count(trained.variables[0]["params"])
    tasks = {
        types.SEGMENTATION: "tumour segmentation",
        types.CLASSIFICATION: f"classification ({', '.join(trained.classes.names)})",
    }
    copies = "" if members == 1 else f", {members} copies whose probabilities are averaged"
    seeds = "" if members == folds else f"{members // folds} trainings of "
    where = ""
    if environment is not None:
        version = environment.get("packages", {}).get("jax", "(unknown)")
        where = f"Trained with JAX {version} on {_devices(environment)}; exported "
    lines = [
        "## Model",
        "",
        f"Network `{config.model.name}` for {' and '.join(tasks[task] for task in config.tasks)}; "
        f"{count:,} parameters{copies}: the {_KEPT[config.train.keep]} weights of "
        f"{seeds}fold{'s' * (folds > 1)} {_join(trained.folds)}. "
        f"Input: {height} × {width} pixels, grey values 0..255; "
        "`preprocessing.json` has every step before and after, `predict_onnx.py` does them.",
        "",
        f"{where or 'Exported '}with mtbus_jax {mtbus_jax.__version__}. Probabilities are the "
        "network's own: not calibrated, without test-time augmentation.",
        "",
        f"Each file was read again and compared with the network on {checked_on}, at batch sizes "
        f"{_join(BATCH_SIZES)}, on a CPU; up to {TOLERANCE:g} is allowed.",
        "",
        "| file | largest difference of a probability | made and run with |",
        "| --- | ---: | --- |",
    ]
    for each in files:
        versions = ", ".join(f"{name} {version}" for name, version in each.versions.items())
        lines.append(f"| `{each.name}` | {each.difference:.1e} | {versions} |")
    return [*lines, ""]


def _normal_class(classes: types.Classes) -> str | None:
    return None if classes.normal is None else classes.names[classes.normal]


def _refining(trained: Trained) -> str:
    name = _normal_class(trained.classes)
    if name is None:
        return "none: every class means a lesion"
    if not trained.config.eval.refine:
        return "none: the run does not refine"
    return (
        f"empty the mask of a picture classified {name}; call a picture with an empty mask {name}; "
        "both look at the pair before refining"
    )


def _devices(environment: dict[str, Any]) -> str:
    """Names of the devices, each kind once, from texts such as "gpu: NVIDIA H200"."""
    counts: dict[str, int] = {}
    for device in environment.get("devices", ["unknown hardware"]):
        platform, _, kind = device.partition(": ")
        name = platform.upper() if kind == platform else kind or platform
        counts[name] = counts.get(name, 0) + 1
    return _join(name if n == 1 else f"{n} × {name}" for name, n in counts.items())


def data_section(trained: Trained, result: dict[str, Any], split_info: dict[str, Any]) -> list[str]:
    """Lines about the data: dataset, folds, leaks; arguments as in `about`."""
    config = trained.config
    lines = [
        DATA,
        "",
        f"`{Path(config.data.name).name}`, {split_info['images']} images of the classes "
        f"{_join(config.data.classes)}; {split_info['split']} split of "
        f"{len(split_info['folds'])} folds:",
        "",
        "| fold | training | validation | test |",
        "| --- | ---: | ---: | ---: |",
    ]
    for fold in trained.folds:
        parts = split_info["folds"][fold]
        counts = (str(len(parts[part])) for part in ("train", "validation", "test"))
        lines.append(f"| {fold} | {' | '.join(counts)} |")
    leaking = result["leaking_test_images"]
    if leaking:
        lines += [
            "",
            f"**Leak:** {leaking} of {result['test_images']} test images share a patient or a "
            "group of near-duplicates with training or validation images of their fold, so the "
            "figures below may be too good.",
        ]
    untrained = [name for name in trained.classes.names if name not in config.data.classes]
    if untrained:
        lines += ["", f"The network has never seen the class {_join(untrained)}."]
    return [*lines, ""]


def figures_section(trained: Trained, result: dict[str, Any], *, joined: bool = True) -> list[str]:
    """The section on what was measured, as Markdown lines.

    Args:
      trained: the networks that were tested.
      result: what `summary.summarise` returned.
      joined: whether the model is the average of these networks.
    """
    kinds = {"raw": "raw", "refined": "refined"}
    kinds = {kind: title for kind, title in kinds.items() if kind in result["results"]}
    if not kinds:
        text = (
            "None: every image was used for training, so it is unknown how good the network is. "
            "Test it on other data."
        )
        return ["## Figures", "", text, ""]
    several = "" if len(trained.members) == len(trained.folds) else "s, averaged,"
    lines = [
        "## Figures",
        "",
        f"Each fold's network{several} on the test images of its fold, at network resolution: "
        "mean, then mean ± standard deviation over folds. Refined: mask and class made to agree.",
        "",
        f"|  | {' | '.join(kinds.values())} |",
        f"| --- |{' ---: |' * len(kinds)}",
    ]
    tables = [result["results"][kind]["figures"] for kind in kinds]
    for name in tables[0]:
        values = [plus_minus(table.get(name)) for table in tables]
        lines.append(f"| {meaning(name).title} | {' | '.join(values)} |")
    if joined and len(trained.folds) > 1:
        lines += [
            "",
            "**The average of the folds, which is what this model computes, has no figure of its "
            "own:** every image of the dataset was used to train or choose some of its members. "
            "Test it on other data.",
        ]
    departures = result["departures_from_published_recipe"]
    if departures:
        lines += ["", f"Departures from the published recipe: {'; '.join(departures)}."]
    elif departures is None:
        lines += ["", "No recipe is published for this dataset."]
    else:
        lines += ["", "Trained by the published recipe."]
    return [*lines, ""]


def about(trained: Trained, result: dict[str, Any], split_info: dict[str, Any]) -> list[str]:
    """Lines on data, figures, use and citation of a run.

    Args:
      trained: the exported networks.
      result: what `summary.summarise` returned for the exported folds.
      split_info: content of ``splits.json``.
    """
    return [
        *data_section(trained, result, split_info),
        *figures_section(trained, result),
        *use_section(trained),
        *citation_section(trained),
    ]


def use_section(trained: Trained) -> list[str]:
    """Lines about use and limits."""
    height, width = trained.image_size
    source = "simulated images" if trained.config.data.name == "phantom" else "one dataset"
    return [
        "## Intended use and limits",
        "",
        "For research on breast-ultrasound images: comparison of methods, teaching, integration "
        "tests. Not for decisions about patients.",
        "",
        f"- Trained on {source}; other devices, centres and populations are untested.",
        f"- A picture is squeezed to {height} × {width} pixels whatever its shape. Crop away text "
        "and borders as the training images are.",
        "- It answers for every picture, also for one that shows no breast.",
        "",
    ]


def citation_section(trained: Trained) -> list[str]:
    """Lines about citation and licence."""
    lines = ["## Citation and licence", "", f"- {_CITATIONS['method']}"]
    if trained.config.data.name in _CITATIONS:
        lines.append(f"- {_CITATIONS[trained.config.data.name]}")
    if trained.config.model.get("encoder_weights") == weights.IMAGENET:
        package = weights.PACKAGES[trained.config.model.encoder]
        lines.append(
            f"- Encoder weights to start from: the Python package {package}, Apache License 2.0, "
            "trained on ImageNet (Deng et al. 2009)."
        )
    if trained.config.data.name in _LICENCES:
        lines += ["", _LICENCES[trained.config.data.name]]
    if trained.config.data.name != "phantom":
        lines += [
            "",
            "The training images belong to their publishers and are not part of these files. Ask "
            "their terms before you pass on weights trained on them.",
        ]
    return [*lines, "", "The software mtbus_jax is under the Apache License 2.0.", ""]


def _join(values) -> str:
    return ", ".join(map(str, values))
