"""What a run folder accepts, refuses and writes."""

import dataclasses
import json
import os

import numpy as np
import pytest
from ml_collections import config_dict

from configs import base
from mtbus_jax import files, types
from mtbus_jax.errors import UserError
from mtbus_jax.training import run_files, run_folder, run_splits


def test_write_json_reads_back_and_leaves_no_partial_file(tmp_path):
    content = {"λ": 0.85, "folds": [0, 1], "none": None, "text": "3 × 4"}
    files.write_json(tmp_path / "a.json", content)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == content
    assert "λ" in (tmp_path / "a.json").read_text(encoding="utf-8")  # legible, not escaped
    assert os.listdir(tmp_path) == ["a.json"]
    files.write_json(tmp_path / "a.json", {"other": 1})
    assert files.read_json(tmp_path / "a.json") == {"other": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_write_that_dies_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "summary.md"
    files.write_text(path, "old\n")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_folder.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(path, "new and longer\n")
    assert path.read_text() == "old\n"


def test_read_json_names_the_file_and_the_mend(tmp_path):
    with pytest.raises(UserError, match=r"config\.json is missing.*--workdir"):
        files.read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text('{"cut": ')
    with pytest.raises(UserError, match=r"config\.json is not valid JSON"):
        files.read_json(tmp_path / "config.json")


def test_flatten_by_hand():
    nested = {"a": 1, "b": {"c": (2, 3), "d": {"e": "x"}}, "f": [4]}
    expected = {"a": 1, "b.c": [2, 3], "b.d.e": "x", "f": [4]}
    assert run_folder.flatten(nested) == expected
    assert run_folder.flatten(config_dict.ConfigDict(nested)) == expected
    assert run_folder.flatten(json.loads(json.dumps(nested))) == expected


def test_config_survives_the_folder(tmp_path):
    config = base.get_config()
    config.data.folds = (2,)
    run_folder.open_run(tmp_path / "deep" / "run", config)
    loaded = run_folder.load_config(tmp_path / "deep" / "run")
    assert loaded.to_dict() == config.to_dict()
    assert loaded.data.folds == (2,)
    assert loaded.tasks == ("seg", "cls")
    assert isinstance(loaded.data.image_size, tuple)


@pytest.mark.parametrize(("network", "former"), [("swin_unetr", False), ("unet", None)])
def test_a_run_from_before_a_field_means_what_it_meant(tmp_path, network, former):
    config = base.get_config()
    config.model.name = network
    run_folder.open_run(tmp_path, config)
    assert run_folder.load_config(tmp_path).model.centred_grey is None
    content = files.read_json(tmp_path / "config.json")
    del content["train"]["encoder_rate"], content["model"]["centred_grey"]
    files.write_json(tmp_path / "config.json", content)
    loaded = run_folder.load_config(tmp_path)
    assert loaded.train.encoder_rate == 1.0
    assert loaded.model.get("centred_grey") is former
    # Such a run goes on, unless it would mean something else now.
    if former is None:
        run_folder.open_run(tmp_path, config)
    else:
        with pytest.raises(UserError, match=r"model\.centred_grey"):
            run_folder.open_run(tmp_path, config)


def test_open_run_writes_configuration_and_environment_only(tmp_path):
    run_folder.open_run(tmp_path / "run", base.get_config())
    assert sorted(os.listdir(tmp_path / "run")) == ["config.json", "environment.json"]
    environment = files.read_json(tmp_path / "run" / "environment.json")
    assert environment["packages"]["jax"].count(".") >= 2
    assert environment["devices"] and ":" in environment["devices"][0]
    assert environment["cpu_count"] >= 1
    assert environment["command"]


@pytest.mark.parametrize(
    ("field", "value", "old"),
    [
        ("seed", 7, "1993"),
        ("tasks", ("seg",), r"\['seg', 'cls'\]"),
        ("data.name", "busi", "'curated_busi'"),
        ("data.split", "grouped", "'published'"),
        ("data.image_size", (128, 96), r"\[128, 128\]"),
        ("model.width", 12, "None"),
        ("loss.weight", 0.4, "0.85"),
        ("train.batch_size", 4, "2"),
        ("train.oversample", False, "True"),
        ("train.learning_rate", 1e-3, "0.0001"),
        ("train.plateau_patience", 10, "20"),
        ("eval.average", True, "False"),  # folds tested in two ways would make one table
    ],
)
def test_a_changed_field_is_refused_by_name(tmp_path, field, value, old):
    run_folder.open_run(tmp_path, base.get_config())
    before = (tmp_path / "config.json").read_text()
    config = base.get_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=rf"another configuration: {field} \({old} there") as error:
        run_folder.open_run(tmp_path, config)
    assert ";" not in str(error.value)  # this field and no other
    assert (tmp_path / "config.json").read_text() == before


def test_all_changed_fields_are_named(tmp_path):
    run_folder.open_run(tmp_path, base.get_config())
    config = base.get_config()
    config.model.width, config.seed = 12, 1
    with pytest.raises(UserError) as error:
        run_folder.open_run(tmp_path, config)
    assert "model.width (None there, 12 now)" in str(error.value)
    assert "seed (1993 there, 1 now)" in str(error.value)


def test_a_run_older_than_a_field_has_what_was_the_only_value_then(tmp_path):
    config = base.get_config()
    del config.train.rotation_fill
    run_folder.open_run(tmp_path, config)
    assert run_folder.load_config(tmp_path).train.rotation_fill == "zero"
    run_folder.open_run(tmp_path, base.get_config())  # goes on
    config = base.get_config()
    config.train.rotation_fill = "reflect"
    with pytest.raises(UserError, match=r"train\.rotation_fill \('zero' there, 'reflect' now\)"):
        run_folder.open_run(tmp_path, config)


def test_an_added_and_a_removed_field_are_refused(tmp_path):
    run_folder.open_run(tmp_path, base.get_config())
    config = base.get_config()
    config.model.dropout = 0.5
    with pytest.raises(UserError, match=r"model\.dropout \('absent' there, 0\.5 now\)"):
        run_folder.open_run(tmp_path, config)
    config = base.get_config()
    del config.loss.gamma
    with pytest.raises(UserError, match=r"loss\.gamma \(2\.0 there, 'absent' now\)"):
        run_folder.open_run(tmp_path, config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data.folds", (1,)),
        ("data.data_dir", "/elsewhere"),
        ("data.manual_dir", "/elsewhere"),
        ("data.cache_dir", "/elsewhere"),
        ("train.epochs", 300),
        ("train.devices", 1),
        ("train.steps_per_call", 5),
        ("train.checkpoint_seconds", 0.0),
        ("train.stop_patience", 80),
        ("eval.batch_size", 2),
        ("eval.refine", False),
        ("log.progress", False),
        ("log.tensorboard", False),
    ],
)
def test_a_free_field_may_change(tmp_path, field, value):
    run_folder.open_run(tmp_path, base.get_config())
    config = base.get_config()
    config.update_from_flattened_dict({field: value})
    run_folder.open_run(tmp_path, config)
    assert run_folder.load_config(tmp_path).to_dict() == config.to_dict()


def test_the_epochs_of_a_cosine_may_not_change(tmp_path):
    config = base.get_config()
    config.train.course, config.train.epochs = "cosine", 20
    run_folder.open_run(tmp_path, config)
    config.train.epochs = 40  # would go on at the twentieth with a rate that had fallen to 0
    with pytest.raises(UserError, match=r"train\.epochs \(20 there, 40 now\)"):
        run_folder.open_run(tmp_path, config)
    assert run_folder.load_config(tmp_path).train.epochs == 20


def test_free_fields_exist_in_the_configuration():
    assert set(run_folder.flatten(base.get_config())) >= run_folder.FREE_FIELDS


def test_a_file_in_the_way_is_a_users_error(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="is a file"):
        run_folder.open_run(tmp_path / "run", base.get_config())
    with pytest.raises(UserError, match="cannot be written"):
        run_folder.open_run(tmp_path / "run" / "below", base.get_config())


def small_cases(count=24):
    blank = np.zeros((count, 2, 3, 1), np.uint8)
    label = (np.arange(count) // 2 % 3).astype(np.int32)
    return types.Cases(
        name="phantom",
        uid=np.array([f"case_{i}" for i in range(count)]),
        image=blank,
        mask=blank,
        label=label,
        original_size=np.full((count, 2), 2, np.int32),
        # Pairs 0–1, 2–3, …: with test folds 0, 1, 0, 1, … every test image leaks.
        group=np.array([f"patient_{i // 2}" for i in range(count)]),
        test_fold=(np.arange(count) % 2).astype(np.int32),
    )


def same(one, other):
    return all(
        np.array_equal(getattr(one, f.name), getattr(other, f.name))
        for f in dataclasses.fields(one)
    )


def test_splits_are_drawn_written_and_reused(tmp_path):
    cases = small_cases()
    folds, content = run_splits.open_splits(tmp_path, cases, "published")
    assert content == files.read_json(tmp_path / "splits.json")
    assert (content["dataset"], content["split"], content["images"]) == ("phantom", "published", 24)
    assert content["test_images"] == [12, 12]
    assert content["leaking_test_images"] == [12, 12]
    assert content["folds"][0]["test"] == [f"case_{i}" for i in range(0, 24, 2)]
    written = (tmp_path / "splits.json").read_bytes()
    again, again_content = run_splits.open_splits(tmp_path, cases, "published")
    assert again_content == content
    assert all(same(a, b) for a, b in zip(folds, again, strict=True))
    assert (tmp_path / "splits.json").read_bytes() == written


def edit_splits(folder, change):
    path = folder / "splits.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_splits_edited_by_hand_are_used_as_they_are(tmp_path):
    cases = small_cases()
    folds, _ = run_splits.open_splits(tmp_path, cases, "published")

    def swap(content):
        fold = content["folds"][0]
        fold["train"][0], fold["validation"][0] = fold["validation"][0], fold["train"][0]

    edit_splits(tmp_path, swap)
    edited, _ = run_splits.open_splits(tmp_path, cases, "published")
    assert edited[0].train[0] == folds[0].validation[0]
    assert edited[0].validation[0] == folds[0].train[0]
    assert same(edited[1], folds[1])


def test_leaks_of_edited_splits_are_counted_anew(tmp_path):
    cases = small_cases()
    run_splits.open_splits(tmp_path, cases, "published")

    def without_leak(content):
        content["folds"][0] = {
            "train": [f"case_{i}" for i in range(8)],
            "validation": [f"case_{i}" for i in range(8, 12)],
            "test": [f"case_{i}" for i in range(12, 24)],
        }
        content["folds"][1] = {
            "train": [f"case_{i}" for i in range(12, 20)],
            "validation": [f"case_{i}" for i in range(20, 24)],
            "test": [f"case_{i}" for i in range(12)],
        }

    edit_splits(tmp_path, without_leak)
    _, content = run_splits.open_splits(tmp_path, cases, "published")
    assert content["leaking_test_images"] == [0, 0]
    assert files.read_json(tmp_path / "splits.json") == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(dataset="busi"), r"dataset='busi', the run for 'phantom'"),
        (lambda c: c.update(split="grouped"), r"split='grouped', the run for 'published'"),
        (lambda c: c["folds"][1]["test"].append("gone"), "no image 'gone'"),
        (lambda c: c["folds"][1]["test"].append("case_0"), "'case_0' appears twice"),
        (lambda c: c["folds"][0].pop("validation"), "lacks its list 'validation'"),
        (lambda c: c.pop("folds"), "splits.json"),
    ],
)
def test_splits_that_do_not_fit_are_refused(tmp_path, change, message):
    run_splits.open_splits(tmp_path, small_cases(), "published")
    edit_splits(tmp_path, change)
    with pytest.raises(UserError, match=message):
        run_splits.open_splits(tmp_path, small_cases(), "published")


def test_a_fold_that_a_person_added_is_counted_at_the_next_start(tmp_path):
    run_splits.open_splits(tmp_path, small_cases(), "published")

    def move_half(content):
        tested = content["folds"][0]["test"]
        other = {**content["folds"][0], "test": tested[::2]}
        content["folds"][0] = {**content["folds"][0], "test": tested[1::2]}
        content["folds"].append(other)

    edit_splits(tmp_path, move_half)
    with pytest.raises(UserError, match="not as long as folds"):
        run_files.read_splits(tmp_path)
    _, content = run_splits.open_splits(tmp_path, small_cases(), "published")
    assert content["edited"] and len(content["test_images"]) == 3
    assert sum(content["test_images"]) == 24
    run_files.read_splits(tmp_path)


def test_splits_of_other_images_are_refused(tmp_path):
    run_splits.open_splits(tmp_path, small_cases(), "published")
    fewer = small_cases().take(np.arange(20))
    with pytest.raises(UserError, match="no image 'case_2"):
        run_splits.open_splits(tmp_path, fewer, "published")


def test_grouped_splits_have_no_leak(tmp_path):
    _, content = run_splits.open_splits(tmp_path, small_cases(72), "grouped")
    assert content["leaking_test_images"] == [0, 0, 0, 0]
    assert sum(content["test_images"]) == 72


def test_fold_dir(tmp_path):
    assert run_folder.fold_dir(tmp_path, 3) == tmp_path / "fold_3"


@pytest.mark.parametrize("folds", [(0,), (3, 1), (0, 1, 2, 3)])
def test_check_folds_accepts(folds):
    run_folder.check_folds(folds, 4)


@pytest.mark.parametrize("folds", [(), (4,), (-1,), (0, 0), (0, 1, 9), (1.0,), ("0",), (None,)])
def test_check_folds_refuses(folds):
    with pytest.raises(UserError, match=r"data\.folds=.*0 to 3"):
        run_folder.check_folds(folds, 4)


def test_a_run_from_before_a_field_gets_what_was_the_only_value_then(tmp_path):
    whole = base.get_config().to_dict()
    for section, known in run_files._CONFIG.items():
        if not isinstance(known, dict):
            continue
        for field in known:
            name = section.rstrip("?")
            if field.endswith("?") and name in whole:
                content = json.loads(json.dumps(whole))
                del content[name][field.rstrip("?")]
                files.write_json(tmp_path / "config.json", content)
                found = run_folder.load_config(tmp_path)
                assert field.rstrip("?") in found[name], field
                run_folder.check_run(tmp_path, found)
