"""mtbus predict with the network `tiny`, which kills itself (SIGKILL) at a moment of choice.

    python predict_killed.py MOMENT COUNT --run=…    (MOMENT of `MOMENTS`; COUNT from 1, 0: never)
"""  # fmt: skip

import os
import pathlib
import resource
import signal
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

MOMENTS = ("half_a_file", "before_row", "half_a_row", "after_row", "after_source", "no_room")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(moment: str, count: int) -> None:
    """Makes the call number ``count`` at that moment the process's last."""
    from mtbus_jax import files
    from mtbus_jax.predict.output import Output

    calls = 0

    def due(counted: bool = True) -> bool:
        nonlocal calls
        calls += counted
        return counted and calls == count

    replace, append, end = os.replace, files.GrowingFile.append, Output.end

    def replacing(source, target):
        if moment == "half_a_file" and due(str(source).endswith(".partial")):
            die()
        replace(source, target)

    def appending(self, piece):
        is_row = self._path.name == "predictions.csv"
        if moment == "before_row" and due(is_row):
            die()
        if moment == "half_a_row" and due(is_row):
            self._file.write(piece.encode()[: len(piece) // 2])
            die()
        append(self, piece)
        if moment == "after_row" and due(is_row):
            die()

    def ending(*args):
        end(*args)
        if moment == "after_source" and due():
            die()

    os.replace, files.GrowingFile.append, Output.end = replacing, appending, ending


if __name__ == "__main__":
    import tiny

    from mtbus_jax import commandline, models
    from mtbus_jax.predict import command

    models.REGISTRY["tiny"] = tiny.TinyNet
    moment, count = sys.argv[1], int(sys.argv[2])
    if moment == "no_room":  # no file may grow beyond so many bytes
        if count:
            resource.setrlimit(resource.RLIMIT_FSIZE, (count, count))
    else:
        die_at(moment, count)
    commandline.run("mtbus predict", command.main, sys.argv[3:])
