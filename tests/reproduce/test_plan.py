"""Configurations of runs, and what is refused before anything is trained."""

import dataclasses
import json
import pickle

import pytest
import tiny

from configs import base, mt_unetpp_bus_uclm
from mtbus_jax import data, models, types
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import published
from mtbus_jax.reproduce.plan import Scale, Study, check_jobs
from mtbus_jax.reproduce.rows import TABLES, TableRun, runs_of
from mtbus_jax.training import run_folder

MT_DO = TableRun("curated_busi", "unetpp", oversample=True)
UCLM = TableRun("bus_uclm", "nnunet")


@pytest.fixture
def tiny_world(monkeypatch):
    monkeypatch.setitem(models.REGISTRY, "unetpp", tiny.TinyNet)
    cases = dataclasses.replace(tiny.make_cases(), name="curated_busi")
    monkeypatch.setattr(data.arrays, "load_cases", lambda name, **kwargs: cases)


def make_study(tmp_path, explicit=(), scale=None, **changes):
    config = base.get_config()
    config.update_from_flattened_dict(changes)
    return Study(tmp_path, config, frozenset(explicit), scale or Scale())


def flat(config):
    return run_folder.flatten(config.to_dict())


# What a base leaves at "all", as the plan says it.
WHOLE = {"data.folds": [0, 1, 2, 3], "data.classes": list(types.CLASS_NAMES)}


def test_the_recipe_is_the_base_and_the_run(tmp_path):
    study = make_study(tmp_path)
    before = study.base.to_dict()
    found, expected = flat(study.config(MT_DO)), flat(base.get_config())
    assert found == expected | WHOLE | {"name": "curated_busi_unetpp_mt_do"}
    assert study.base.to_dict() == before
    for run in runs_of(tuple(row for table in TABLES.values() for row in table.rows)):
        config = {k: v for k, v in flat(study.config(run)).items() if k != "data.classes"}
        assert published.departures(config) == [], run


def test_another_dataset_brings_its_recipe(tmp_path):
    found = flat(make_study(tmp_path).config(UCLM))
    expected = flat(mt_unetpp_bus_uclm.get_config())
    names = {"name": "bus_uclm_nnunet_mt", "model.name": "nnunet", "train.oversample": False}
    assert found == expected | WHOLE | names


def test_what_the_user_chose_stays(tmp_path):
    # In the configuration file: another value than Table 5's.
    study = make_study(tmp_path, **{"train.epochs": 30})
    assert (study.config(UCLM).train.epochs, study.config(UCLM).loss.weight) == (30, 0.4)
    # On the command line: whatever value.
    study = make_study(tmp_path, explicit=["loss.weight"])
    assert (study.config(UCLM).train.epochs, study.config(UCLM).loss.weight) == (250, 0.85)


def test_scale_comes_last(tmp_path):
    scale = Scale(epochs=3, image_size=(16, 32), width=5, folds=(2, 0))
    study = make_study(tmp_path, scale=scale, **{"train.epochs": 30})
    for run in (MT_DO, UCLM):
        config = study.config(run)
        assert config.train.epochs == 3
        assert config.data.image_size == (16, 32)
        assert config.model.width == 5
        assert [job.fold for job in study.jobs((run,))] == [2, 0]


@pytest.mark.parametrize(
    ("field", "hint"),
    [("tasks", ""), ("model.name", ""), ("train.oversample", ""), ("data.folds", "--folds")],
)
def test_what_the_tables_vary_is_not_the_users(tmp_path, field, hint):
    with pytest.raises(UserError, match=f"--config.{field} is what the tables.*{hint}"):
        make_study(tmp_path, explicit=[field]).config(MT_DO)


def test_a_configuration_that_lacks_a_field(tmp_path):
    study = make_study(tmp_path, scale=Scale(width=5))
    with study.base.unlocked():
        study.base.model = {"name": "unetpp"}
    with pytest.raises(UserError, match=r"lacks the field model\.width"):
        study.config(MT_DO)


def test_jobs_can_be_sent_to_another_machine(tmp_path):
    jobs = make_study(tmp_path).jobs((MT_DO, UCLM))
    assert [(job.workdir.name, job.fold) for job in jobs] == [
        (run.name, fold) for run in (MT_DO, UCLM) for fold in range(4)
    ]
    assert jobs[5].name == "bus_uclm_nnunet_mt, fold 1"
    sent = pickle.loads(pickle.dumps(jobs[5]))
    assert (sent.workdir, sent.fold) == (jobs[5].workdir, 1)
    assert sent.config.to_dict() == jobs[5].config.to_dict()


def test_folders_of_something_else_are_refused(tmp_path):
    study = make_study(tmp_path)
    study.check_folders((MT_DO, UCLM))
    assert list(tmp_path.iterdir()) == []
    other = study.config(MT_DO)
    other.seed = 1
    run_folder.open_run(study.directory(MT_DO), other)
    with pytest.raises(UserError, match=r"seed \(1 there, 1993 now\)"):
        study.check_folders((MT_DO,))
    study.check_folders((UCLM,))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        make_study(tmp_path / "file").check_folders((MT_DO,))


def test_a_run_that_has_found_its_classes_in_the_data_is_gone_on_with(tmp_path):
    study = make_study(tmp_path)
    cases = dataclasses.replace(tiny.make_cases(), name="curated_busi")
    run_folder.open_run(study.directory(MT_DO), data.resolve(study.config(MT_DO), cases))
    study.check_folders((MT_DO,))
    other = make_study(tmp_path, **{"data.class_names": ("normal", "benign", "malignant")})
    with pytest.raises(UserError, match=r"data\.class_names"):
        other.check_folders((MT_DO,))


def test_a_longer_training_is_not_passed_off_as_a_shorter_one(tmp_path):
    study = make_study(tmp_path, scale=Scale(epochs=3))
    fold = run_folder.fold_dir(study.directory(MT_DO), 1)
    fold.mkdir(parents=True)
    (fold / "metrics.jsonl").write_text("".join(f'{{"epoch": {e}}}\n' for e in (1, 2, 3)))
    study.check_folders((MT_DO,))
    (fold / "metrics.jsonl").write_text("".join(f'{{"epoch": {e}}}\n' for e in (1, 2, 3, 4)))
    with pytest.raises(UserError, match=r"fold_1 was trained for 4 epochs already.* 3 asked"):
        study.check_folders((MT_DO,))


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (Scale(image_size=(20, 32)), "multiples of 16"),
        (Scale(image_size=(16, 32), folds=(4,)), "0 to 3"),
        (Scale(image_size=(16, 32), epochs=0), "train.epochs"),
        (Scale(image_size=(16, 32), width=0), "model.width"),
    ],
)
def test_a_bad_value_is_found_before_anything_is_written(tmp_path, tiny_world, scale, message):
    study = make_study(tmp_path, scale=scale)
    with pytest.raises(UserError, match=message):
        check_jobs(study.jobs((MT_DO,)))
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_only_the_network_knows_is_found_too(tmp_path, tiny_world, monkeypatch):
    class Picky(tiny.TinyNet):
        def __call__(self, image, *, train=False):
            raise UserError("model.width=5: choose an even one.")

    monkeypatch.setitem(models.REGISTRY, "unetpp", Picky)
    study = make_study(tmp_path, scale=Scale(image_size=(16, 32), width=5))
    with pytest.raises(UserError, match="choose an even one"):
        check_jobs(study.jobs((MT_DO,)))


def test_good_jobs_pass_whatever_devices_the_other_machine_has(tmp_path, tiny_world):
    study = make_study(
        tmp_path, scale=Scale(image_size=(16, 32)), **{"train.devices": 8, "train.batch_size": 8}
    )
    check_jobs(study.jobs((MT_DO,)))
    assert list(tmp_path.iterdir()) == []


def test_splits_by_hand_in_the_run_folder_decide_which_folds_there_are(tmp_path, tiny_world):
    study = make_study(tmp_path, scale=Scale(image_size=(16, 32), folds=(1,)))
    directory = study.directory(MT_DO)
    directory.mkdir()
    uid = [str(u) for u in tiny.make_cases().uid]
    one_fold = {"train": uid[:20], "validation": uid[20:30], "test": uid[30:]}
    content = {"dataset": "curated_busi", "split": "published", "folds": [one_fold]}
    (directory / "splits.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="0 to 0"):
        check_jobs(study.jobs((MT_DO,)))
