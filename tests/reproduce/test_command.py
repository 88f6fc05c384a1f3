"""The command: a whole small table from nothing, resuming, failures, and what it refuses."""

import dataclasses
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tiny

from mtbus_jax import configuration, crossval, data, models, refine
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import stored_predictions
from mtbus_jax.metrics import segmentation
from mtbus_jax.reproduce import command, rows

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUNS = {"seg": "curated_busi_unetpp_seg_do", "cls": "curated_busi_unetpp_cls_do",
        "mt": "curated_busi_unetpp_mt_do"}  # fmt: skip
WITH_DO = ("ST(Seg)+DO", "ST(Cls)+DO", "ST(Seg+Cls)+PR+DO", "MT+DO", "MT+PR+DO")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The tiny network as UNet++, the tiny images as Curated BUSI, Table 5 with its DO rows only.

    The rest of Table 5 is the same work again.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.REGISTRY, "unetpp", tiny.TinyNet)
        cases = dataclasses.replace(tiny.make_cases(), name="curated_busi")
        patch.setattr(data.arrays, "load_cases", lambda name, **kwargs: cases)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        (section,) = rows.TABLES[5].sections
        kept = tuple(row for row in section.rows if row.label in WITH_DO)
        section = dataclasses.replace(section, rows=kept)
        patch.setitem(rows.TABLES, 5, dataclasses.replace(rows.TABLES[5], sections=(section,)))
        patch.setitem(rows.FIGURES, 6, (kept[0], *kept[3:]))
        yield cases


def arguments(workdir, *more):
    return [
        f"--workdir={workdir}",
        "--epochs=2",
        f"--image_size={tiny.HEIGHT},{tiny.WIDTH}",
        "--folds=0,2",
        "--config.train.batch_size=5",
        "--config.train.learning_rate=0.01",
        "--config.train.checkpoint_seconds=0.0",
        "--config.eval.tta=False",
        "--config.log.progress=False",
        "--config.log.tensorboard=False",
        *more,
    ]


@pytest.fixture(scope="module")
def done(world, tmp_path_factory):
    """The folder after ``--table=5``."""
    folder = tmp_path_factory.mktemp("study")
    command.main(arguments(folder, "--table=5"))
    return folder


@pytest.fixture
def copy(done, tmp_path):
    return shutil.copytree(done, tmp_path / "copy")


def read_cases(folder, run):
    paths = sorted((folder / RUNS[run]).glob("fold_*/cases.csv"))
    assert len(paths) == 2
    return pd.concat([pd.read_csv(path) for path in paths], ignore_index=True)


def figures(folder):
    return pd.read_csv(folder / "table_5.csv").set_index(["row", "metric"])


def assert_figure(folder, row, metric, per_fold):
    found = figures(folder).loc[(row, metric)]
    assert found["mean"] == pytest.approx(per_fold.mean())
    assert found.sd == pytest.approx(per_fold.std(ddof=1))
    assert found.folds == 2


# The first test to ask for `done` trains six folds.
@pytest.mark.long
def test_rows_are_those_of_the_runs(done):
    seg, cls, mt = (read_cases(done, run) for run in RUNS)
    assert len(seg) == len(mt) == 24
    for row, frame, prefix in (
        ("ST(Seg)+DO", seg, ""), ("MT+DO", mt, ""), ("MT+PR+DO", mt, "refined_"),
    ):  # fmt: skip
        dice = frame.groupby("fold")[f"{prefix}dice"].mean()
        assert_figure(done, row, "dsc_average", dice)
        normal = frame[frame.label == "normal"].groupby("fold")[f"{prefix}dice"].mean()
        assert_figure(done, row, "dsc_normal", normal)
    for row, frame, prefix in (
        ("ST(Cls)+DO", cls, ""), ("MT+DO", mt, ""), ("MT+PR+DO", mt, "refined_"),
    ):  # fmt: skip
        right = frame.label == frame[f"{prefix}predicted"]
        assert_figure(done, row, "acc", right.groupby(frame.fold).mean())


@pytest.mark.long
def test_the_joined_row_is_the_refining_of_real_masks(done, world):
    per_fold = {"dsc_average": [], "acc": []}
    for fold in (0, 2):
        seg, cls = (
            stored_predictions.read(done / RUNS[run] / f"fold_{fold}") for run in ("seg", "cls")
        )
        assert seg.uid.tolist() == cls.uid.tolist()
        index = [world.uid.tolist().index(uid) for uid in seg.uid]
        mask, class_id = refine.refine(seg.mask, cls.class_logits[0])
        truth = world.mask[index, ..., 0] > 0
        dice = [segmentation.dice(t, np.asarray(m)) for t, m in zip(truth, mask, strict=True)]
        per_fold["dsc_average"].append(np.mean(dice))
        per_fold["acc"].append(np.mean(world.label[index] == np.asarray(class_id)))
    for metric, values in per_fold.items():
        assert_figure(done, "ST(Seg+Cls)+PR+DO", metric, pd.Series(values))


@pytest.mark.long
def test_the_files_of_a_table(done):
    text = (done / "table_5.md").read_text()
    assert text.startswith(
        "# Table 5: ablation of MT UNet++ on Curated BUSI (16×32 pixels, 2 of 200 epochs, "
        "2 of 4 folds: not the published recipe)"
    )
    assert "train.learning_rate = 0.01 instead of 0.0001" in text
    assert "--table=5" in text and "Trained on cpu" in text
    table = figures(done)
    for label in WITH_DO:
        line = next(line for line in text.splitlines() if line.startswith(f"| {label} |"))
        metric = "acc" if "Cls" in label else "dsc_average"
        found = table.loc[(label, metric)]
        assert f"{found['mean']:.3f} ± {found.sd:.3f}" in line
        latex = f"{found['mean']:.3f} $\\pm$ {found.sd:.3f}"
        assert latex in (done / "table_5.tex").read_text()
    assert table.loc[("MT+PR+DO", "acc")].published_mean == 0.802
    tests = pd.read_csv(done / "table_5_significance.csv")
    assert set(tests.row) == set(WITH_DO[:-1])
    assert set(tests.reference) == {"MT+PR+DO"}
    assert len(tests) == 6 and (tests.p_holm >= tests.p_value).all()
    assert not list(done.rglob("*.partial"))


@pytest.mark.long
def test_a_lost_fold_is_trained_again_and_no_other(copy, trained, done):
    shutil.rmtree(copy / RUNS["cls"] / "fold_2")
    before = figures(done)
    command.main(arguments(copy, "--table=5"))
    assert trained == [(RUNS["cls"], 2)]
    pd.testing.assert_frame_equal(figures(copy), before)
    command.main(arguments(copy, "--table=5"))
    assert len(trained) == 1


@pytest.mark.long
def test_figure_6_comes_from_the_same_runs(copy, trained, capsys):
    command.main(arguments(copy, "--figure=6"))
    assert trained == []
    assert (copy / "figure_6.png").stat().st_size > 1000
    assert "figure_6.png" in capsys.readouterr().out
    uid = str(tiny.make_cases().uid[0])
    command.main(arguments(copy, "--figure=6", f"--cases={uid}"))
    assert f"Test images {uid}, chosen by name" in (copy / "figure_6.md").read_text()


@pytest.mark.long
def test_no_train_writes_what_is_there_and_says_what_is_not(copy, trained):
    (copy / RUNS["cls"] / "fold_2" / "cases.csv").unlink()
    with pytest.raises(UserError, match=r"1 jobs are missing: \S+_cls_do, fold 2 is not finished"):
        command.main(arguments(copy, "--table=5", "--no_train"))
    assert trained == []
    text = (copy / "table_5.md").read_text()
    for label in ("ST(Cls)+DO", "ST(Seg+Cls)+PR+DO"):
        assert re.search(rf"^\| {re.escape(label)} \|( missing \|){{9}}$", text, flags=re.M)
    assert re.search(r"^\| MT\+PR\+DO \| \d", text, flags=re.M)
    # The fold that is there can be had alone.
    command.main([*arguments(copy, "--table=5", "--no_train"), "--folds=0"])
    assert "1 of 4 folds" in (copy / "table_5.md").read_text()


@pytest.mark.long
def test_a_failed_job_marks_its_rows_and_is_not_repeated_for_ever(copy, monkeypatch, capsys):
    calls = []

    def fail(config, workdir, *, folds):
        calls.append((config.name, *folds))
        raise RuntimeError("no memory left")

    (copy / RUNS["mt"] / "fold_0" / "cases.csv").unlink()
    monkeypatch.setattr(crossval, "train_and_evaluate", fail)
    for _ in range(2):
        with pytest.raises(UserError, match="failed 2 times") as error:
            command.main(arguments(copy, "--table=5"))
        assert calls == [(RUNS["mt"], 0)] * 2
    log = copy / RUNS["mt"] / "jobs" / "fold_0.log"
    assert str(log) in str(error.value) and "no memory left" in str(error.value)
    assert "--retry_failed" in str(error.value)
    assert "no memory left" in log.read_text()
    assert "| MT+PR+DO | missing |" in (copy / "table_5.md").read_text()
    with pytest.raises(UserError, match="failed once"):
        command.main(arguments(copy, "--table=5", "--retry_failed", "--max_attempts=1"))
    assert len(calls) == 3
    monkeypatch.undo()
    capsys.readouterr()


@pytest.mark.long
def test_a_dry_run_writes_nothing(copy, capsys, tmp_path):
    (copy / RUNS["mt"] / "fold_0" / "cases.csv").unlink()
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    command.main(arguments(copy, "--table=5", "--dry_run"))
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith(RUNS["mt"])).split()[1:3] == ["1", "1"]
    assert next(line for line in lines if line.startswith("total")).split()[1:3] == ["5", "1"]


@pytest.mark.long
def test_other_flags_on_the_same_folder_are_refused(copy, trained):
    with pytest.raises(UserError, match=r"train.learning_rate \(0.01 there, 0.02 now\)"):
        command.main([*arguments(copy, "--table=5"), "--config.train.learning_rate=0.02"])
    with pytest.raises(UserError, match="trained for 2 epochs already, more than the 1"):
        command.main([*arguments(copy, "--table=5"), "--epochs=1"])
    assert trained == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--table=3"], r"--table=3: there is no such table here. Known: 4, 5, 6, 7, 8, 9, 10, 11"),
        (["--table=five"], "five"),
        (["--figure=2"], "--figure=2: there is no such figure here. Known: 6"),
        ([], "--table is missing, one of 4, 5"),
        (["--table=5", "--workdir="], "--workdir is missing"),
        (["--table=5", "--image_size=64"], "--image_size=64: give height and width"),
        (["--table=5", "--image_size=64,x"], "--image_size=64,x: give comma-separated numbers"),
        (["--table=5", "--image_size=20,32"], "multiples of 16"),
        (["--table=5", "--image_size=20,32", "--launcher=submitit"], "multiples of 16"),
        (["--table=5", "--folds=a"], "--folds=a: give comma-separated numbers"),
        (["--table=5", "--folds=4"], "0 to 3"),
        (["--table=5", "--folds=9", "--dry_run"], "0 to 3"),
        (["--table=5", "--folds=-1", "--dry_run"], "0 to 3"),
        (["--table=5", "--folds=1,1", "--dry_run"], "distinct folds"),
        (["--table=5", "--epochs=0"], "train.epochs=0"),
        (["--table=5", "--epochs=many"], "many"),
        (["--table=5", "--max_attempts=0"], "--max_attempts=0"),
        (["--table=5", "--tabel=5"], "tabel"),
        (["--table=5", "six"], "unexpected argument 'six'"),
        (["--table=5", "--launcher=slurm"], "inline"),
        (["--table=5", "--slurm_gpus=1"], "--launcher=submitit"),
        (["--table=5", "--parallel_jobs=2"], "--launcher=submitit"),
        (["--table=5", "--launcher=submitit", "--parallel_jobs=-1"], "parallel_jobs"),
        (["--table=5", "--config=nowhere.py"], "nowhere.py: there is no such file"),
        (["--table=5", "--config.train.epoch=3"], 'Did you mean "train.epochs"'),
        (["--table=5", "--config.train.epochs=three"], "three"),
        (["--table=5", "--config.model.name=nnunet"], "model.name is what the tables set"),
        (["--table=5", "--config.data.folds=(0,)"], "use --folds"),
        (["--table=5", "--config.train.batch_size=-1"], "batch_size"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_refused_before_anything_is_written(world, tmp_path, flags, message):
    workdir = tmp_path / "study"
    size = f"--image_size={tiny.HEIGHT},{tiny.WIDTH}"
    with pytest.raises(UserError, match=message):
        command.main([f"--workdir={workdir}", size, *flags])
    assert not workdir.exists()


def run_command(*flags, **options):
    return subprocess.run(
        [sys.executable, "-m", "mtbus_jax.reproduce", *flags],
        capture_output=True,
        text=True,
        **{"cwd": ROOT} | options,
    )


def test_the_command_ends_with_one_paragraph_and_exit_code_2(tmp_path):
    # From any folder: the configuration is found beside the package.
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = run_command("--table=12", f"--workdir={tmp_path / 'x'}", cwd=tmp_path, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("mtbus_jax.reproduce: --table=12: there is no such table")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()


def test_help_names_the_flags_and_is_quick_to_import():
    done = run_command("--help")
    assert done.returncode == 0
    for flag in ("--table", "dry_run", "--slurm_partition", "retry_failed", "--cases"):
        assert flag in done.stdout
    program = "import sys, mtbus_jax.reproduce; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_the_commands_of_the_documentation_parse():
    text = (ROOT / "docs" / "reproduce.md").read_text()
    lines = re.findall(r"^mtbus reproduce .*$", text, flags=re.M)
    assert len(lines) >= 5
    for line in lines:
        given, rest = configuration.take(shlex.split(line)[2:])
        command._parser("reproduce").parse_args(rest)
        configuration.read(given, default="base")
    defined = {name.lstrip("-") for name in command._parser("")._option_string_actions}
    for name in re.findall(r"`--(?!config)(\w+)", text):
        assert name in defined or name == "slurm_", name
