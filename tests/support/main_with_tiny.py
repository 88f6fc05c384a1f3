"""main.py with one network more, `tiny`: for tests that need several processes."""

import pathlib
import runpy
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

if __name__ == "__main__":
    import tiny

    from mtbus_jax import models

    models.REGISTRY["tiny"] = tiny.TinyNet
    sys.argv[0] = "main.py"
    runpy.run_path(str(ROOT / "main.py"), run_name="__main__")
