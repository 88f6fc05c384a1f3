"""The benchmarks run, on networks and images so small that their figures mean nothing."""

import json
import os
import pathlib
import subprocess
import sys

import in_process
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# By script: options that make it short. Without a peer, which takes an environment of its own.
# Nothing but benchmarks rests on these scripts, so a change of something else waits for a few only.
OPTIONS = {
    "convolution": "--batch=1 --size=32 --width=4 --rounds=1",
    "deformable": "--batch=1 --rounds=1 --layers=1",
    "depthwise": "--batch=1 --rounds=1",
    "growth": "--model=unet --size=16 --width=2 --batch=1 --images=16 --programs=2",
    "loop": "--networks=unet:2:16:2 --images=16 --rounds=2",
    "serve": "--clients=1,3 --requests=4 --queue=1 --size=16 --width=2 --training_steps=0",
    "predict": "--settings= --batch=2 --size=16 --width=2 --rounds=2 --steps=1 --training_steps=1",
    "train_step": "--settings= --batch=2 --size=16 --width=2 --rounds=2 --steps=1",
}


def run_here(script, options):
    """In this process, which has imported JAX already."""
    return in_process.run_script(ROOT / "benchmarks" / f"{script}.py", options.split(" "))


def run(script, options):
    return subprocess.run(
        [sys.executable, ROOT / "benchmarks" / f"{script}.py", *options.split(" ")],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )


QUICK = ("deformable", "growth")


@pytest.mark.parametrize(
    "script",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.long) for name in OPTIONS],
)
def test_it_runs_and_writes_its_figures(script, tmp_path):
    path = tmp_path / "figures.json"
    done = run_here(script, f"{OPTIONS[script]} --json={path}")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(path.read_text())) > 1


@pytest.mark.parametrize(
    ("script", "options"),
    [("predict", "--batch=2"), ("train_step", "--batch=2"), ("time_to_published", "--out=none")],
)
def test_without_a_peer_it_is_refused(script, options):
    done = run_here(script, options)
    assert done.returncode == 2
    assert "--peer_python is missing" in done.stderr


@pytest.mark.long
def test_ingredients_are_compared_fold_by_fold(tmp_path, phantom_data_dir):
    path = tmp_path / "figures.json"
    options = f"--out={tmp_path / 'runs'} --data=phantom --changes=nearest --folds=0,1 --epochs=1"
    done = run("ablation", f"{options} --size=32 --data_dir={phantom_data_dir} --json={path}")
    assert done.returncode == 0, done.stderr
    whole, nearest = json.loads(path.read_text())["rows"]
    assert [row["change"] for row in (whole, nearest)] == ["whole", "nearest"]
    by_fold = [a - b for a, b in zip(nearest["dsc"], whole["dsc"], strict=True)]
    shown = f"| {sum(by_fold) / 2:+.3f} | {by_fold[0]:+.3f}, {by_fold[1]:+.3f} |"
    assert shown in done.stdout.splitlines()[-1]


def test_an_unknown_ingredient_is_refused():
    done = run_here("ablation", "--out=nowhere --changes=magic")
    assert done.returncode == 2 and "--changes: magic. Choose from whole" in done.stderr


def test_an_ingredient_that_is_in_the_recipe_already_is_refused():
    done = run_here("ablation", "--out=nowhere --changes=area --config=best")
    assert done.returncode == 2 and "--changes: area: the recipe is so already" in done.stderr


@pytest.mark.long
def test_networks_on_phantoms_go_on_where_they_were(tmp_path, phantom_data_dir):
    out, path = tmp_path / "runs", tmp_path / "figures.json"
    options = f"--out={out} --networks=segresnet --steps=18 --size=32 --json={path}"
    options += f" --data_dir={phantom_data_dir}"
    done = run("phantoms", options)
    assert done.returncode == 0, done.stderr
    (first,) = json.loads(path.read_text())["networks"]
    assert (first["network"], first["steps"], first["test_images"]) == ("segresnet", 18, 60)
    assert f"| `segresnet` |  | {first['parameters']:,} | 18 |" in done.stdout
    # The same again trains nothing.
    before = (out / "segresnet" / "fold_0" / "metrics.jsonl").read_text()
    assert run("phantoms", options).returncode == 0
    assert json.loads(path.read_text())["networks"] == [first]
    assert (out / "segresnet" / "fold_0" / "metrics.jsonl").read_text() == before


@pytest.mark.long
def test_time_to_given_figures_is_measured_once(tmp_path, phantom_data_dir):
    path = tmp_path / "figures.json"
    options = f"--out={tmp_path / 'out'} --settings= --folds=1 --target=0,0.99 --json={path}"
    options += " --recipes=configs/mt_unetpp.py:2 --config.data.name=phantom"
    options += f" --config.data.data_dir={phantom_data_dir} --config.data.image_size=32,48"
    options += " --config.model.name=unet --config.train.batch_size=50 --config.train.augment=False"
    done = run("time_to_published", f"{options} --config.model.width=2")
    assert done.returncode == 0, done.stderr
    content = json.loads(path.read_text())
    (runs,) = content["runs"].values()
    first, second = runs["1"]["rows"]
    assert (first["epoch"], second["epoch"]) == (1, 2)
    assert runs["1"]["facts"]["start_seconds"] < first["processor_seconds"]
    whole = second["processor_seconds"]
    whole += 198 * (second["processor_seconds"] - first["processor_seconds"])
    for line in content["lines"]:
        assert line["dice"] == [first["processor_seconds"] / 60] * 2
        assert line["both"] == [None, None]
        assert line["whole_minutes"] == pytest.approx(whole / 60)
    assert "| not in 2 epochs | not in 2 epochs |" in done.stdout
    assert f"{whole / 60:.0f}, extrapolated from 2 epochs |" in done.stdout
    # The same again trains nothing; other settings are refused.
    again = run("time_to_published", f"{options} --config.model.width=2")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert json.loads(path.read_text())["runs"] == content["runs"]
    other = run("time_to_published", f"{options} --config.model.width=4")
    assert other.returncode == 2
    assert "was measured with other settings" in other.stderr
