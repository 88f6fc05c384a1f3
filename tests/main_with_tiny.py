"""main.py with one network more, `tiny`: for tests that need several processes."""

import pathlib
import runpy
import sys

TESTS = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

if __name__ == "__main__":
    import tiny

    from mtbus_jax import models

    models.REGISTRY["tiny"] = tiny.TinyNet
    sys.argv[0] = "main.py"
    runpy.run_path(str(TESTS.parent / "main.py"), run_name="__main__")
