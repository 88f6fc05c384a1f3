"""Ways in which files of a run folder come to be damaged or foreign."""

import json
import shutil


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path):
    path.write_bytes(b"")


def no_text(path):
    path.write_bytes(b"\xff\xfe\x00\x01" * 50)


def foreign_list(path):
    path.write_text("[1, 2, 3]\n")


def foreign_fields(path):
    path.write_text('{"made_by": "another program"}\n')


def a_folder(path):
    path.unlink()
    path.mkdir()


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut_line(number):
    """Leaves half of a line, counted from 1, and the lines behind it."""

    def damage(path):
        lines = path.read_text().splitlines(keepends=True)
        lines[number - 1] = lines[number - 1][: len(lines[number - 1]) // 2] + "\n"
        path.write_text("".join(lines))

    damage.__name__ = f"cut_line_{number}"
    return damage


def drop_last_lines(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))


def double_a_line(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], lines[1], *lines[2:]]))


def change(*keys, to):
    """Sets a value deep in a JSON file."""

    def damage(path):
        content = json.loads(path.read_text())
        part = content
        for key in keys[:-1]:
            part = part[key]
        if to is ...:
            del part[keys[-1]]
        else:
            part[keys[-1]] = to
        path.write_text(json.dumps(content))

    damage.__name__ = "_".join(map(str, ("set", *keys)))
    return damage


_ANY = (cut, empty, no_text, foreign_list, foreign_fields, a_folder)
_METRICS = (cut_line(2), double_a_line, no_text, foreign_list, a_folder)
_TABLE = (cut, empty, no_text, foreign_list, drop_last_lines, double_a_line, a_folder)

# What is done to which file; each is one trial.
FILES = {
    "config.json": (
        *_ANY,
        change("train", to=None),
        change("train", "epochs", to="3"),
        change("data", "image_size", to=32),
        change("model", "name", to=...),
        change("seed", to=...),
    ),
    "splits.json": (
        *_ANY,
        change("folds", to={}),
        change("folds", 0, to=...),
        change("folds", 0, "test", to=...),
        change("folds", 0, "test", to=[1, 2]),
        change("leaking_test_images", to=[0]),
    ),
    "environment.json": (*_ANY, change("packages", to=[])),
    "summary.json": (
        *_ANY,
        change("results", to=[]),
        change("results", "raw", "figures", "dsc_average", to=0.5),
        change("image_size", to=...),
    ),
    "trust.json": (
        *_ANY,
        change("folds", to=[]),
        change("folds", "0", "presence", to=3),
        change("folds", "0", "class_error", to=[0]),
        change("measured", "test", to={}),
    ),
    "trust.csv": _TABLE,
    "fold_0/cases.csv": _TABLE,
    "fold_0/metrics.jsonl": _METRICS,
    "fold_0/predictions.npz": (cut, empty, no_text, flip, a_folder),
    "fold_0/predictions_validation.npz": (cut, empty, flip),
    "fold_0/checkpoints/best/*/state": (remove,),
    "fold_0/checkpoints/best/*/origin/metadata": (remove, empty, foreign_list),
    "fold_0/checkpoints/best/*/leaves/metadata": (remove, cut, foreign_list),
    "fold_0/checkpoints/latest/*/state": (remove,),
    "fold_0/checkpoints/latest/*/leaves/metadata": (empty, foreign_fields),
}
TRIALS = [(name, damage) for name, damages in FILES.items() for damage in damages]
# A few of every file, for a quick look.
QUICK = [
    (name, damage)
    for name, damages in FILES.items()
    for damage in ([damages[0], damages[-1]] if len(damages) > 3 else damages[:1])
]
