"""The command `mtbus`: its subcommands, one style of flags, and how it ends."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import tomllib
import venv

import pytest
from PIL import Image

from mtbus_jax import cli, commandline, errors
from mtbus_jax.errors import UserError
from mtbus_jax.images import phantom

ROOT = pathlib.Path(__file__).resolve().parent.parent
MTBUS = [sys.executable, "-c", "from mtbus_jax.cli import main; main()"]
SMALL = [
    "--config.data.image_size=32,48",
    "--config.model.name=unet",
    "--config.model.width=4",
    "--config.model.encoder=None",
    "--config.model.encoder_weights=None",
    "--config.model.frozen_statistics=None",
    "--config.train.encoder_rate=1",
    "--config.log.tensorboard=False",
    "--config.train.epochs=1",
]
VERBS = [
    "train", "evaluate", "predict", "external", "serve", "report", "compare", "ensemble", "export",
    "check", "curate", "reproduce", "bundle", "pack",
]  # fmt: skip


def run(*arguments, command=MTBUS, cwd=ROOT, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*command, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding=environment.get("PYTHONIOENCODING", "utf-8"),
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )


def ends(capsys, *argv: str) -> tuple[int, str, str]:
    """Exit code and output of `mtbus` in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    out, err = capsys.readouterr()
    return caught.value.code or 0, out, " ".join(err.split())


def test_a_warning_to_the_user_is_one_line_without_code():
    program = (
        "import warnings; from mtbus_jax import commandline\n"
        "def command(argv, *, program):\n"
        "    warnings.warn('a mask is stretched', UserWarning)\n"
        "    warnings.warn('call it otherwise', FutureWarning)\n"
        "commandline.run('mtbus train', command, [])"
    )
    done = run(command=[sys.executable, "-c", program])
    assert done.returncode == 0
    first, *others = done.stderr.splitlines()
    assert first == "mtbus train: a mask is stretched"
    assert "FutureWarning: call it otherwise" in others[0] and ":4:" in others[0]


def test_help_lists_each_subcommand_in_one_line(capsys):
    code, out, err = ends(capsys, "--help")
    assert (code, err) == (0, "")
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert listed == VERBS
    assert max(map(len, out.splitlines())) <= 80


def test_help_imports_nothing_slow():
    program = (
        "import sys\nfrom mtbus_jax import cli\n"
        "try: cli.main(['--help'])\n"
        "finally: print([m for m in ('jax', 'numpy', 'ml_collections') if m in sys.modules])"
    )
    done = run(command=[sys.executable, "-c", program])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["trian"], ["mtbus: 'trian' is not a subcommand.", 'Did you mean "train"', "pack"]),
        (["quux"], ["'quux'", "train, evaluate"]),
        ([], ["subcommand is missing"]),
        (["train"], ["mtbus train: --config is missing"]),
        (["train", "--wrkdir=x"], ["--wrkdir", 'Did you mean "--workdir"']),
        (["train", "--config=base", "extra"], ["'extra'"]),
        (["train", "--workdir"], ["--workdir", "expected one argument"]),
        (["train", "--config=base", "--workdir="], ["--workdir is missing"]),
        (
            ["train", "--config=base", "--peer_timeout=0"],
            ["--peer_timeout=0: give a whole number from 1"],
        ),
        (["evaluate", "--mode=evaluate"], ["--mode", "no such flag"]),
        (
            ["evaluate", "--workdir=x", "--config=best", "--config.data.folds=0"],
            ["--config.data.folds does not matter when a run is tested again", "eval.*"],
        ),
        (["curate", "--size=9"], ["--size=9: give a whole number from 16 up to 512"]),
        (["curate", "--threshold=nan"], ["--threshold=nan", "from 0 up to 1"]),
        (["reproduce", "--table=5", "--dry_run=maybe"], ["--dry_run", "true or false"]),
    ],
    ids=" ".join,
)
def test_wrong_use_is_one_paragraph_and_code_2(capsys, argv, words):
    code, _, err = ends(capsys, *argv)
    assert code == 2
    for word in words:
        assert word in err
    assert len(err.split(". ")) <= 4


@pytest.mark.parametrize("verb", cli.VERBS)
def test_each_subcommand_shows_its_flags(verb, capsys):
    code, out, _ = ends(capsys, verb, "--help")
    assert code == 0
    assert out.startswith(f"usage: mtbus {verb} ")
    expected = {"train": "--config", "evaluate": "--workdir", "reproduce": "--config"}
    expected |= {"serve": "--port"}
    assert expected.get(verb, "--out") in out


@pytest.mark.parametrize("verb", cli.VERBS)
def test_doors_open_the_same_functions(verb):
    """main.py and every ``python -m`` run what `mtbus` runs."""
    if verb in ("evaluate", "compare"):
        pytest.skip("a subcommand without a door of its own")
    function = cli._imported(verb)
    if verb == "train":
        assert 'run("main.py", cli.train)' in (ROOT / "main.py").read_text()
        return
    room = importlib.import_module(f"mtbus_jax.{verb}")
    name = f"mtbus_jax.{verb}.__main__" if hasattr(room, "__path__") else f"mtbus_jax.{verb}"
    assert importlib.import_module(name).main is function


def test_the_console_command_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"mtbus": "mtbus_jax.cli:main"}


def test_both_styles_of_flags_mean_the_same():
    parser = commandline.Parser("p", None)
    parser.add_argument("--out")
    parser.add_argument("--folds", type=commandline.numbers)
    parser.switch("--dry_run", help="")
    equal = parser.parse_args(["--out=a", "--folds=0,1", "--dry_run=true"])
    assert equal == parser.parse_args(["--out", "a", "--folds", "0,1", "--dry_run"])
    assert (equal.out, equal.folds, equal.dry_run) == ("a", (0, 1), True)
    off = parser.parse_args(["--dry_run", "--out=a", "--out=b", "--nodry_run"])
    assert (off.out, off.dry_run) == ("b", False)
    with pytest.raises(UserError, match="no such flag"):
        parser.parse_args(["--fold=0"])  # no abbreviations
    with pytest.raises(UserError, match="comma-separated numbers"):
        parser.parse_args(["--folds=a"])


def test_the_home_folder_is_meant_by_a_tilde(tmp_path, monkeypatch, capsys):
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    for argv in (
        ["evaluate", "--workdir=~/run"],
        ["report", "--run", "~/run"],
        ["compare", "~/run", "~/other"],
        ["ensemble", "--runs", "~/run", "~/other", f"--out={tmp_path / 'e'}"],
        ["export", "--run=~/run", f"--out={tmp_path / 'e'}", "--formats=stablehlo"],
    ):
        code, _, err = ends(capsys, *argv)
        assert code == 2
        assert f"{tmp_path}/run" in err, argv
        assert "~" not in err, argv


def test_an_exit_code_is_passed_on_and_an_error_is_told(capsys):
    def failing(argv, *, program):
        raise UserError(f"{program} was given\n  {argv[0]}")

    for command, code in ((lambda argv, *, program: 3, 3), (failing, errors.EXIT_USAGE)):
        with pytest.raises(SystemExit) as caught:
            commandline.run("mtbus x", command, ["a"])
        assert caught.value.code == code
    assert capsys.readouterr().err == "mtbus x: mtbus x was given a\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_output_that_is_not_utf_8_fails_nothing(encoding):
    program = (
        "import sys; from mtbus_jax.commandline import run\n"
        "def say(argv, *, program): print('0.751 ± 0.018 ≤ λ'); print('…λ', file=sys.stderr)\n"
        "run('x', say)"
    )
    done = run(command=[sys.executable, "-c", program], PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert "0.751" in done.stdout
    assert "0.018" in done.stdout


@pytest.mark.long
def test_train_evaluate_and_compare(tmp_path, phantom_data_dir):
    """A whole run from an empty folder, by bare name, on a terminal that knows ASCII only."""
    environment = {"XDG_CACHE_HOME": str(tmp_path / "xdg"), "PYTHONIOENCODING": "ascii"}
    for name in ("a", "b"):
        done = run(
            "train", "--config=quickstart", "--workdir", tmp_path / name, *SMALL,
            f"--config.data.data_dir={phantom_data_dir}", cwd=tmp_path, **environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "| DSC average |" in done.stdout
        assert f"open {tmp_path / name / 'report.html'} in a browser" in done.stdout
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    again = run("evaluate", f"--workdir={tmp_path / 'a'}", cwd=tmp_path, **environment)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "a" / "summary.json").read_text()) == summary
    compared = run("compare", "--out=c.html", "a", "b", cwd=tmp_path, **environment)
    assert compared.returncode == 0, compared.stderr
    assert (tmp_path / "c.html").exists()


@pytest.mark.long
def test_an_installed_wheel_works_in_an_empty_folder(tmp_path, phantom_data_dir):
    """Built and installed without its dependencies, which the environment of the tests lends."""
    pytest.importorskip("hatchling", reason="NOT TESTED: building the wheel needs hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    subprocess.run([*pip, "--no-index", "--quiet", str(wheel)], check=True)
    # The dependencies, without what an editable install adds to the path.
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    lent = pathlib.Path(pytest.__file__).resolve().parents[1]
    (site / "lent.pth").write_text(f"{lent}\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {"PYTHONPATH": "", "XDG_CACHE_HOME": str(tmp_path / "xdg")}
    where = (
        "import mtbus_jax, importlib.util as u; print(mtbus_jax.__file__, u.find_spec('configs'))"
    )
    found = run("-c", where, command=[str(python)], cwd=empty, **environment)
    assert str(site) in found.stdout, found.stderr
    assert found.stdout.split()[-1] == "None"  # no top-level name beside the package
    mtbus = [str(tmp_path / "env" / "bin" / "mtbus")]
    done = run(
        "train", "--config=quickstart", "--workdir=run", *SMALL,
        f"--config.data.data_dir={phantom_data_dir}", command=mtbus, cwd=empty, **environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (empty / "run" / "summary.json").exists()
    refused = run("train", "--config=quickstrat", command=mtbus, cwd=empty, **environment)
    assert refused.returncode == 2
    assert 'Did you mean "quickstart"' in refused.stderr
    # Without --run, by the network that the wheel carries.
    Image.fromarray(next(iter(phantom.make_phantoms(1))).image).save(empty / "a.png")
    done = run("predict", "--input=a.png", "--out=found", command=mtbus, cwd=empty, **environment)
    assert done.returncode == 0, done.stderr
    assert f"see {site}" in done.stdout
    assert (empty / "found" / "masks" / "a.png").is_file()
    dry = run(
        "reproduce", "--figure=6", "--workdir=tables", "--dry_run", "--config.data.name=nothing",
        command=mtbus, cwd=empty, **environment,
    )  # fmt: skip
    # The base configuration was found and read, for the field is refused by name only after that.
    assert dry.returncode == 2
    assert "--config.data.name is what the tables set themselves" in dry.stderr
