"""Pictures of training are known again by their content, whatever they are called."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tiny

from mtbus_jax import bundle, crossval, data, ensemble, external, models
from mtbus_jax.errors import UserError
from mtbus_jax.external import score
from mtbus_jax.report import command, compare
from mtbus_jax.training import bundled, run_folder, seen


def folder_of(cases, name, *, uid=None):
    """The cases as a folder of somebody's own would have them."""
    uid = cases.uid if uid is None else np.array(uid)
    return dataclasses.replace(cases, name=name, uid=uid, group=uid.copy())


LOAD_CASES = data.load_cases
NUMBERS = [f"{i:03d}" for i in range(48)]
HERE = folder_of(tiny.make_cases(), "here", uid=NUMBERS)
FOLDERS = {
    "/data/here": HERE,
    "/data/elsewhere": folder_of(tiny.make_cases(seed=1), "elsewhere", uid=NUMBERS),
    # Other names, another order, and two that are no copies.
    "/data/copy": folder_of(
        dataclasses.replace(
            HERE.take(np.arange(48)[::-1]),
            image=np.concatenate([HERE.image[:1:-1], tiny.make_cases(seed=2).image[:2]]),
        ),
        "copy",
        uid=[f"copy{i}" for i in range(48)],
    ),
}


@pytest.fixture(scope="module", autouse=True)
def world():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
        patch.setattr(score, "RESAMPLES", 20)
        for module in (data, data.arrays):
            patch.setattr(module, "load_cases", lambda name, **options: FOLDERS[name])
        yield


def config_of(name, *, folds=(0,), **train):
    config = tiny.make_config(epochs=1, **train)
    config.data.name, config.data.split, config.data.fold_count = name, "grouped", 2
    config.data.folds = folds
    config.log.tensorboard = False
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "run"
    crossval.train_and_evaluate(config_of("/data/here", folds=(0, 1)), workdir)
    return workdir


def test_a_digest_is_that_of_the_pixels_and_their_shape():
    image = np.arange(96, dtype=np.uint8).reshape(1, 8, 12, 1)
    one, turned, flat = (
        seen.digests(dataclasses.replace(HERE, image=each))[0]
        for each in (image, image.reshape(1, 12, 8, 1), np.full_like(image, 7))
    )
    assert len(one) == 16 and one != turned
    assert flat == ""


def test_weights_of_other_pictures_under_the_same_numbers_may_be_started_from(run, tmp_path):
    config = config_of("/data/elsewhere", start_from=str(run / "fold_1"))
    crossval.train_and_evaluate(config, tmp_path / "new")
    # Of a run that does not say what its pictures were, the numbers are all that is known.
    old = run_folder.fold_dir(tmp_path / "old", 1)
    old.parent.mkdir()
    for path in run.iterdir():
        if path.name != seen.PICTURES:
            (old.parent / path.name).symlink_to(path)
    config.train.start_from = str(old)
    with pytest.raises(UserError, match="holds out here"):
        crossval.train_and_evaluate(config, tmp_path / "other")


def test_resaved_pictures_under_the_same_names_are_a_warning(run, tmp_path, monkeypatch):
    saved = dataclasses.replace(HERE, name="saved", image=HERE.image + 1)
    monkeypatch.setitem(FOLDERS, "/data/saved", saved)
    config = config_of("/data/saved", start_from=str(run / "fold_1"))
    with pytest.warns(UserWarning, match=r"48 images have the names .* with other pixels"):
        crossval.train_and_evaluate(config, tmp_path / "new")


def test_copies_in_other_folds_are_no_leak_of_the_starting_weights(run, tmp_path, monkeypatch):
    """They leak within each run, not from one to the other: the folds are the same."""
    image = HERE.image.copy()
    image[:] = image[np.arange(48) // 4 * 4]  # of each four pictures all are one
    monkeypatch.setitem(FOLDERS, "/data/here", dataclasses.replace(HERE, image=image))
    config = config_of("/data/here", folds=(0, 1))
    crossval.train_and_evaluate(config, tmp_path / "first")
    config.train.start_from = str(tmp_path / "first")
    config.seed = 7
    crossval.train_and_evaluate(config, tmp_path / "second")


def test_weights_of_copies_under_other_names_may_not(run, tmp_path):
    config = config_of("/data/copy", start_from=str(run / "fold_0"))
    with pytest.raises(UserError, match=r"holds out here, such as 'copy\d+'"):
        crossval.train_and_evaluate(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("bundled_first", [False, True])
def test_copies_are_no_external_pictures(run, tmp_path, bundled_first):
    network = run
    if bundled_first:
        network = tmp_path / "bundle"
        bundle.make_bundle(run, network)
        assert seen.read(network).uids is None
        text = (network / seen.PICTURES).read_text()
        assert not any(f'"{uid}"' in text for uid in NUMBERS)
    with pytest.raises(UserError, match=r"46 of 48 images of copy .* such as 'copy0'.*equal"):
        external.evaluate("/data/copy", tmp_path / "out", run=network)
    assert not (tmp_path / "out").exists()
    found = external.evaluate("/data/copy", tmp_path / "out", run=network, leave_out_known=True)
    assert (found["images"], found["left_out"]) == (2, 46)
    assert "46 pictures that the run was trained on" in (tmp_path / "out/summary.md").read_text()
    content = external.evaluate("/data/elsewhere", tmp_path / "other", run=network)
    assert (content["images"], content["left_out"]) == (48, 0)


def test_a_run_that_does_not_say_what_its_pictures_were_is_named(run, tmp_path):
    old = shutil.copytree(run, tmp_path / "of_before")
    (old / seen.PICTURES).unlink()
    content = external.evaluate("/data/copy", tmp_path / "out", run=old)
    assert (content["left_out"], content["known_by_name_alone"]) == (0, ["of_before"])
    text = (tmp_path / "out" / "summary.md").read_text()
    assert "The pictures of of_before are known by the dataset's name alone" in text.replace(
        "\\", ""
    )
    # One of another resolution behind the run's first weights cannot be compared either.
    started = shutil.copytree(run, tmp_path / "started")
    change = json.loads((started / "config.json").read_text())
    change["train"]["start_from"] = str(old)
    (started / "config.json").write_text(json.dumps(change))
    content = external.evaluate("/data/elsewhere", tmp_path / "more", run=started)
    assert content["known_by_name_alone"] == ["of_before"]


@pytest.mark.parametrize("wrong", ["evaluate", "bundle", "report"])
def test_other_pictures_under_the_same_names_change_nothing(run, tmp_path, wrong):
    workdir = shutil.copytree(run, tmp_path / "run")
    before = {path: path.read_bytes() for path in workdir.rglob("*.*") if path.is_file()}
    with pytest.raises(UserError, match="trained on a different dataset"):
        if wrong == "evaluate":
            crossval.evaluate(workdir, changes={"data.name": "/data/elsewhere"})
        elif wrong == "bundle":
            bundle.make_bundle(workdir, tmp_path / "out", places={"name": "/data/elsewhere"})
        else:
            command.main([f"--run={workdir}", "--data=/data/elsewhere"])
    after = {path: path.read_bytes() for path in workdir.rglob("*.*") if path.is_file()}
    assert after == before
    assert not (tmp_path / "out").exists()


def test_runs_before_and_after_a_move_go_together(run, tmp_path, monkeypatch):
    monkeypatch.setitem(FOLDERS, "/data/moved", dataclasses.replace(HERE, name="moved"))
    config = config_of("/data/moved", folds=(0, 1))
    config.seed = 7
    crossval.train_and_evaluate(config, tmp_path / "moved")
    monkeypatch.delitem(FOLDERS, "/data/here")
    places = {"data.name": "/data/moved"}
    ensemble.make_ensemble([run, tmp_path / "moved"], tmp_path / "both", changes=places)
    everything = config_of("/data/moved")
    everything.data.split = "all"
    crossval.train_and_evaluate(everything, tmp_path / "all")
    bundle.make_bundle(
        tmp_path / "all", tmp_path / "out", evidence=[run], places={"name": "/data/moved"}
    )


def test_another_folder_of_the_same_name_may_be_tested(run, tmp_path, monkeypatch):
    """As another hospital's, where the name is relative and means another folder."""
    other = dataclasses.replace(tiny.make_cases(seed=5), name="here")
    monkeypatch.setitem(FOLDERS, "/data/here", other)
    assert external.evaluate("/data/here", tmp_path / "out", run=run)["images"] == 48


def test_runs_are_compared_by_their_pictures(run, tmp_path, monkeypatch):
    monkeypatch.setitem(FOLDERS, "/data/moved", dataclasses.replace(HERE, name="moved"))
    for name, seed in (("moved", 7), ("elsewhere", 8)):
        config = config_of(f"/data/{name}", folds=(0, 1))
        config.seed = seed
        crossval.train_and_evaluate(config, tmp_path / name)
    found = compare.compare([run, tmp_path / "moved"])
    assert [test.images for test in found.tests] == [48, 48] and found.warnings == []
    with pytest.raises(UserError, match="other pictures under the same names"):
        compare.compare([run, tmp_path / "elsewhere"])


def test_pictures_that_can_be_compared_by_name_alone_are_a_warning(run, tmp_path):
    old = shutil.copytree(run, tmp_path / "old")
    (old / seen.PICTURES).unlink()
    config = config_of("/data/copy", start_from=str(old / "fold_1"))
    with pytest.warns(UserWarning, match="are compared by their names alone"):
        crossval.train_and_evaluate(config, tmp_path / "new")
    text = (tmp_path / "new" / "summary.md").read_text()
    assert "**Weights of another run:**" in text and "`fold_1`" in text


def test_the_run_that_weights_came_from_is_found_from_any_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run.parent)
    config = config_of("/data/elsewhere", start_from=f"{run.name}/fold_0")
    crossval.train_and_evaluate(config, tmp_path / "new")
    crossval.train_and_evaluate(config, tmp_path / "new")  # goes on under either spelling
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="46 of 48 images of copy"):
        external.evaluate("/data/copy", tmp_path / "out", run=tmp_path / "new")


def test_nothing_but_copies(run, tmp_path, monkeypatch):
    monkeypatch.setitem(FOLDERS, "/data/again", dataclasses.replace(HERE, name="again"))
    with pytest.raises(UserError, match="All 48 images of again are pictures"):
        external.evaluate("/data/again", tmp_path / "out", run=run, leave_out_known=True)


def test_pictures_of_what_the_run_started_from_are_known_too(run, tmp_path):
    config = config_of("/data/elsewhere", start_from=str(run / "fold_0"))
    crossval.train_and_evaluate(config, tmp_path / "new")
    with pytest.raises(UserError, match="46 of 48 images of copy"):
        external.evaluate("/data/copy", tmp_path / "out", run=tmp_path / "new")
    # A bundle knows them where those runs are not.
    bundle.make_bundle(tmp_path / "new", tmp_path / "bundle")
    with pytest.raises(UserError, match="46 of 48 images of copy"):
        external.evaluate("/data/copy", tmp_path / "out", run=tmp_path / "bundle")


def test_an_ensemble_of_other_pictures_names_the_run(run, tmp_path, monkeypatch):
    config = config_of("/data/elsewhere", folds=(0, 1))
    config.seed = 7
    crossval.train_and_evaluate(config, tmp_path / "other")
    with pytest.raises(UserError, match=r"other/fold_0.* was trained on a different dataset"):
        ensemble.make_ensemble([run, tmp_path / "other"], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_a_broken_list_is_said(run, tmp_path):
    path = tmp_path / seen.PICTURES
    content = json.loads((run / seen.PICTURES).read_text())
    path.write_text(json.dumps(content | {"uids": content["uids"][1:]}))
    with pytest.raises(UserError, match=r"pictures\.json.*uids is not as long as digests"):
        seen.read(tmp_path)


@pytest.mark.real
def test_the_included_network_knows_its_pictures(real_data_dir, tmp_path):
    config = run_folder.load_config(bundled.PRETRAINED)
    config.data.update(manual_dir=str(real_data_dir), data_dir=str(tmp_path / "built"))
    config.data.cache_dir = str(tmp_path / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.arrays, "load_cases", LOAD_CASES)
        cases = data.load_configured(config)
    seen.write(tmp_path, cases, config, named=False)
    written = (tmp_path / seen.PICTURES).read_text()
    assert written == (bundled.PRETRAINED / seen.PICTURES).read_text()
