"""How processes are told of each other, and how they meet: without JAX, on this machine alone."""

import json
import pathlib
import socket
import subprocess
import sys
import threading

import pytest

from mtbus_jax.errors import UserError
from mtbus_jax.runtime import cluster
from mtbus_jax.runtime.cluster import Cluster

ROOT = pathlib.Path(__file__).resolve().parents[2]
SLURM = {
    "SLURM_JOB_ID": "4099",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "node[03-05]",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_TASKS_PER_NODE": "1(x3)",
    "SLURM_NTASKS": "3",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}
KUBERNETES = {
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "JOB_COMPLETION_INDEX": "2",
    "JAX_NUM_PROCESSES": "4",
}


def by_flags(coordinator=None, processes=None, process=None):
    return cluster.find_cluster(
        coordinator=coordinator,
        processes=processes,
        process=process,
        from_environment=False,
        environ=SLURM,  # must not matter
    )


def by_environment(environ):
    return cluster.find_cluster(
        coordinator=None, processes=None, process=None, from_environment=True, environ=environ
    )


def test_without_flags_a_process_is_on_its_own_even_inside_a_slurm_job():
    assert by_flags() is None


def test_flags_name_the_process():
    found = by_flags("[::1]:1234", 2, 1)
    assert found == Cluster("[::1]:1234", 2, 1, None)
    assert found.address == ("::1", 1234)
    assert by_flags("node:1234", 1, 0) is None  # a cluster of one


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ((None, 2, 0), "--coordinator missing"),
        (("node:1234", None, None), "--processes and --process missing"),
        (("node:1234", 2, None), "--process missing"),
        (("node", 2, 0), "HOST:PORT"),
        (("node:", 2, 0), "HOST:PORT"),
        ((":1234", 2, 0), "HOST:PORT"),
        (("node:70000", 2, 0), "65535"),
        (("node:http", 2, 0), "HOST:PORT"),
        (("node:1234", 0, 0), "at least one"),
        (("node:1234", 2, 2), "0 to 1"),
        (("node:1234", 2, -1), "0 to 1"),
    ],
)
def test_bad_flags_are_refused(flags, word):
    with pytest.raises(UserError, match=word):
        by_flags(*flags)


def test_flags_beside_the_environment_are_refused():
    with pytest.raises(UserError, match="one or the other"):
        cluster.find_cluster(
            coordinator="node:1", processes=None, process=None, from_environment=True
        )


def test_an_environment_that_says_nothing_is_refused():
    with pytest.raises(UserError, match="neither SLURM"):
        by_environment({})


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node03", "node03"),
        ("node03,other", "node03"),
        ("node[03-05,9],other", "node03"),
        ("node[3,05]", "node3"),
        ("rack1-[7-8]-ib,other", "rack1-7-ib"),
    ],
)
def test_slurm_tasks_are_processes(nodes, host):
    found = by_environment(SLURM | {"SLURM_STEP_NODELIST": nodes})
    assert found == Cluster(f"{host}:61443", 3, 2, None)


def test_slurm_steps_of_one_job_have_ports_of_their_own():
    other = by_environment(SLURM | {"SLURM_STEP_ID": "1"})
    assert other.coordinator == "node03:61444"


@pytest.mark.parametrize("tasks", ["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"])
def test_one_slurm_task_is_on_its_own(tasks):
    environ = {k: v for k, v in SLURM.items() if k not in ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")}
    assert by_environment(environ | {tasks: "1", "SLURM_PROCID": "0"}) is None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"SLURM_STEP_NODELIST": None}, "srun"),
        ({"SLURM_PROCID": None}, "SLURM_PROCID is not set"),
        ({"SLURM_LOCALID": "a"}, "SLURM_LOCALID='a' is not a number"),
        ({"SLURM_PROCID": "3"}, "0 to 2"),
        ({"SLURM_STEP_NODELIST": "[1-2]"}, "names no host"),
    ],
)
def test_a_slurm_environment_that_is_not_whole_is_refused(change, word):
    environ = {k: v for k, v in (SLURM | change).items() if v is not None}
    with pytest.raises(UserError, match=word):
        by_environment(environ)


@pytest.mark.parametrize(
    ("change", "devices"),
    [
        ({}, None),  # alone on its node: all GPUs
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, (1,)),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x12),2", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, (1, 3)),
        ({"SLURM_STEP_TASKS_PER_NODE": "4", "CUDA_VISIBLE_DEVICES": "2"}, None),  # has its own
        (
            {
                "SLURM_STEP_TASKS_PER_NODE": "2",
                "CUDA_VISIBLE_DEVICES": "0,1",
                "SLURM_GPUS_PER_TASK": "2",
            },
            None,
        ),
        (
            {
                "SLURM_STEP_TASKS_PER_NODE": "4",
                "CUDA_VISIBLE_DEVICES": "0,1,2,3",
                "SLURM_GPUS_PER_TASK": "1",
                "SLURM_GPU_BIND": "none",  # each sees all four
            },
            (1,),
        ),
        ({"SLURM_STEP_TASKS_PER_NODE": "4"}, None),  # no GPUs
    ],
)
def test_slurm_tasks_of_one_node_share_its_gpus(change, devices):
    assert by_environment(SLURM | change | {"SLURM_LOCALID": "1"}).local_devices == devices


@pytest.mark.parametrize(
    ("name", "coordinator"),
    [
        ("train-2.pods.default.svc.cluster.local", "train-0.pods.default.svc.cluster.local:61440"),
        ("set-workers-0-2.set", "set-workers-0-0.set:61440"),
    ],
)
def test_kubernetes_pods_are_processes(monkeypatch, name, coordinator):
    monkeypatch.setattr(socket, "getfqdn", lambda: name)
    assert by_environment(KUBERNETES) == Cluster(coordinator, 4, 2, None)


def test_kubernetes_coordinator_may_be_named():
    environ = KUBERNETES | {"JAX_COORDINATOR_ADDRESS": "other:1234"}
    assert by_environment(environ) == Cluster("other:1234", 4, 2, None)
    one = {"JAX_NUM_PROCESSES": "1", "JOB_COMPLETION_INDEX": "0"}
    assert by_environment(KUBERNETES | one) is None


@pytest.mark.parametrize(
    ("missing", "name", "word"),
    [
        ("JOB_COMPLETION_INDEX", "train-2.pods", "completionMode: Indexed"),
        ("JAX_NUM_PROCESSES", "train-2.pods", "parallelism"),
        (None, "train-2", "subdomain"),
        (None, "train-2-x7k9q.pods", "JAX_COORDINATOR_ADDRESS"),
    ],
)
def test_a_kubernetes_environment_that_is_not_whole_is_refused(monkeypatch, missing, name, word):
    monkeypatch.setattr(socket, "getfqdn", lambda: name)
    with pytest.raises(UserError, match=word):
        by_environment({k: v for k, v in KUBERNETES.items() if k != missing})


# ------------------------------------------------------------------------------------------ meeting


def free_port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def meet_all(members, *, timeout=20.0):
    """Lets the members meet in threads of their own; the message of each, None for a success."""
    said = [None] * len(members)

    def meet(place, member):
        try:
            cluster.meet(member, timeout=timeout)
        except UserError as error:
            said[place] = str(error)

    threads = [threading.Thread(target=meet, args=each) for each in enumerate(members)]
    for thread in reversed(threads):  # process 0 comes last
        thread.start()
    for thread in threads:
        thread.join()
    return said


def test_processes_meet_and_leave_the_port_free():
    address = f"localhost:{free_port()}"
    members = [Cluster(address, 3, process) for process in range(3)]
    for _ in range(2):  # the second time, the port must not be taken
        assert meet_all(members) == [None, None, None]


def test_all_that_came_are_told_who_did_not():
    address = f"localhost:{free_port()}"
    said = meet_all([Cluster(address, 4, process) for process in (0, 2)], timeout=2)
    for message in said:
        assert "of 4 processes, number 1, 3 did not come" in message


def test_a_coordinator_that_is_not_there_is_named():
    address = f"localhost:{free_port()}"
    (message,) = meet_all([Cluster(address, 2, 1)], timeout=0.5)
    assert f"cannot reach process 0 at {address}" in message


def test_two_with_one_number_are_told():
    address = f"localhost:{free_port()}"
    said = meet_all([Cluster(address, 3, process) for process in (0, 1, 1)])
    assert all("two processes were started as process 1" in message for message in said)


def test_another_number_of_processes_is_told():
    address = f"localhost:{free_port()}"
    said = meet_all([Cluster(address, 2, 0), Cluster(address, 3, 1)])
    assert all("processes=3" in message and "with 2" in message for message in said)


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on port {port}"):
            cluster.meet(Cluster(f"localhost:{port}", 2, 0), timeout=1)


@pytest.mark.parametrize(
    "sent",
    [b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"process": "1", "processes": 2}\n', b""],
    ids=["http", "list", "text", "nothing"],
)
def test_strangers_and_processes_stopped_meanwhile_do_not_count(sent):
    port = free_port()
    first = {}
    thread = threading.Thread(
        target=lambda: first.update(said=meet_all([Cluster(f"localhost:{port}", 2, 0)]))
    )
    thread.start()
    greeting = json.dumps({"process": 1, "processes": 3}).encode()
    for words in (sent, greeting[:10]):
        while True:
            try:
                with socket.create_connection(("localhost", port)) as connection:
                    connection.sendall(words)
                break
            except ConnectionRefusedError:
                pass
    assert meet_all([Cluster(f"localhost:{port}", 2, 1)]) == [None]
    thread.join()
    assert first["said"] == [None]


def test_a_process_started_again_takes_its_own_place():
    port = free_port()
    result = {}
    thread = threading.Thread(
        target=lambda: result.update(said=meet_all([Cluster(f"localhost:{port}", 3, 0)]))
    )
    thread.start()
    while True:
        try:
            with socket.create_connection(("localhost", port)) as connection:
                connection.sendall(b'{"process": 1, "processes": 3}\n')
            break
        except ConnectionRefusedError:
            pass
    address = f"localhost:{port}"
    assert meet_all([Cluster(address, 3, 1), Cluster(address, 3, 2)]) == [None, None]
    thread.join()
    assert result["said"] == [None]


# ------------------------------------------------------------------------------------- command line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--coordinator=localhost:1234"], ["--processes and --process missing"]),
        (["--coordinator=localhost:1234", "--processes=two", "--process=0"], ["two"]),
        (["--distributed", "--process=0"], ["one or the other"]),
        (["--peer_timeout=0"], ["peer_timeout"]),
        (
            ["--coordinator=localhost:1", "--processes=2", "--process=1", "--peer_timeout=1"],
            ["cannot reach process 0 at localhost:1", "after 1 seconds"],
        ),
    ],
)
def test_main_refuses_with_one_paragraph(tmp_path, flags, words):
    command = ["--config=configs/quickstart.py", f"--workdir={tmp_path / 'run'}", *flags]
    done = subprocess.run(
        [sys.executable, "main.py", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    text = " ".join(done.stderr.split())
    for word in ("main.py: ", *words):
        assert word in text
    assert not (tmp_path / "run").exists()
