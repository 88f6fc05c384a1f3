"""Trains and evaluates: ``python main.py --config=configs/mt_unetpp.py --workdir=runs/``."""

from mtbus_jax import cli, commandline

if __name__ == "__main__":
    commandline.run("main.py", cli.train)
