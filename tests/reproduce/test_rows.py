"""The tables as data: what they ask for, and that it is what is published."""

import pathlib
import re

import pandas as pd

from configs import base
from mtbus_jax import models
from mtbus_jax.evaluation import published
from mtbus_jax.reproduce import rows
from mtbus_jax.reproduce.rows import FIGURES, TABLES, TableRun, runs_of
from mtbus_jax.training import run_folder

ALL_ROWS = tuple(row for table in TABLES.values() for row in table.rows)


def labels(number):
    return [row.label for row in TABLES[number].rows]


def test_the_tables_of_the_main_paper():
    assert list(TABLES) == [4, 5, 6, 7, 8, 9, 10, 11]
    assert [len(table.rows) for table in TABLES.values()] == [16, 10, 10, 18, 3, 3, 6, 6]
    assert labels(5) == labels(6) == [
        "ST(Seg)", "ST(Seg)+DO", "ST(Cls)", "ST(Cls)+DO", "ST(Seg+Cls)+PR", "ST(Seg+Cls)+PR+DO",
        "MT", "MT+PR", "MT+DO", "MT+PR+DO",
    ]  # fmt: skip
    assert [len(section.rows) for section in TABLES[7].sections] == [5, 4, 5, 4]
    assert [section.confusion for section in TABLES[7].sections] == [True, False, True, False]


def test_every_published_figure_stands_beside_exactly_one_figure_of_its_table():
    table = pd.read_csv(
        published.Path(published.__file__).with_name("published.csv"), dtype={"table": str}
    )
    # Figures in the text are the incoherent ratios, which Table 7 shows here.
    table["table"] = table["table"].replace("text", "7").astype(int)
    for line in table.itertuples(index=False):
        beside = [
            row.label
            for section in TABLES[line.table].sections
            for row in section.rows
            if line.metric in section.metrics
            and (row.runs[0].dataset, row.runs[0].model, row.setting)
            == (line.dataset, line.model, line.setting)
        ]
        assert len(beside) == 1, (line, beside)


def test_runs_have_names_of_their_own_that_are_good_folder_names():
    runs = runs_of(ALL_ROWS)
    names = [run.name for run in runs]
    # Table 4: 16; 5 and 6: 6 each, one of them Table 4's; 8 and 9: 1 more; 10: 6; 11: 2 more.
    assert len(set(names)) == len(names) == 16 + 6 + 5 + 1 + 6 + 2
    for name in names:
        assert name.isascii() and name == name.lower() and name.replace("_", "").isalnum()
    assert TableRun("curated_busi", "unetpp", oversample=True).name == "curated_busi_unetpp_mt_do"
    without = TableRun("curated_busi", "unet", ("seg",), classes=("benign", "malignant"))
    assert without.name == "curated_busi_unet_seg_benign_malignant"


def test_runs_are_shared_within_and_between_tables():
    assert len(runs_of(TABLES[5].rows)) == 6
    assert set(runs_of(TABLES[7].rows)) == set(runs_of(TABLES[5].rows + TABLES[6].rows))
    assert runs_of(TABLES[8].rows) == runs_of(TABLES[9].rows)
    segmentation = {run for run in runs_of(TABLES[4].rows) if run.model == "nnunet"}
    assert len(segmentation & set(runs_of(TABLES[6].rows))) == 1
    assert set(runs_of(FIGURES[6])) <= set(runs_of(TABLES[5].rows))


def test_table_4_has_eight_networks_twice():
    networks = ["unet", "attention_unet", "basic_unetpp", "swin_unetr", "residual_unet",
                "segresnet", "nnunet", "bts_unet"]  # fmt: skip
    for section, classes in zip(TABLES[4].sections, (2, 3), strict=True):
        assert [row.seg.model for row in section.rows] == networks
        assert {len(row.seg.classes) for row in section.rows} == {classes}
        assert {row.seg.tasks for row in section.rows} == {("seg",)}
        assert not any(row.seg.oversample or row.cls for row in section.rows)


def test_labels_say_what_rows_do():
    """DO, PR and tasks as a row's setting names them."""
    for row in ALL_ROWS:
        setting = row.setting.split()[0]
        assert all(run.oversample == ("+DO" in setting) for run in row.runs), row
        assert row.refined == ("+PR" in setting), row
        kind = setting.split("+DO")[0].split("+PR")[0]
        tasks = [run.tasks for run in row.runs]
        expected = {
            "ST(Seg)": [("seg",)],
            "ST(Cls)": [("cls",)],
            "ST(Seg+Cls)": [("seg",), ("cls",)],
            "MT": [("seg", "cls")],
        }
        assert tasks == expected[kind], row
        # A joined row is of one network, once for each task.
        assert len({(run.dataset, run.model) for run in row.runs}) == 1


def test_overrides_are_fields_of_the_configuration_and_networks_exist():
    known = run_folder.flatten(base.get_config().to_dict())
    for run in runs_of(ALL_ROWS):
        assert run.overrides.keys() <= known.keys()
        assert models.create(run.model, tasks=run.tasks).tasks == run.tasks
    assert rows.TableRun("bus_uclm", "nnunet", ("cls",)).overrides == {
        "name": "bus_uclm_nnunet_cls",
        "data.name": "bus_uclm",
        "data.classes": ("benign", "malignant", "normal"),
        "model.name": "nnunet",
        "tasks": ("cls",),
        "train.oversample": False,
        "loss.double_softmax": True,
    }
    segmentation = rows.TableRun("curated_busi", "unetpp", ("seg",)).overrides
    assert segmentation["train.keep"] == "last" and segmentation["eval.fill_holes"] is True


def test_the_documentation_counts_the_runs():
    text = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "reproduce.md").read_text()
    counts = {
        f"{kind}={number}": int(count)
        for kind, number, count in re.findall(
            r"^\| `--(\w+)=(\d+)` \|.*?\| (\d+) \|", text, flags=re.M
        )
    }
    assert counts == {
        **{f"table={n}": len(runs_of(table.rows)) for n, table in TABLES.items()},
        **{f"figure={n}": len(runs_of(columns)) for n, columns in FIGURES.items()},
    }
    assert f"{len(runs_of(ALL_ROWS))} runs" in text
