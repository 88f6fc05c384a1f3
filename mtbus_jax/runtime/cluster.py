"""Which processes train one run together, and how they find each other.

Nothing here knows JAX: the processes are named by flags, by SLURM or by Kubernetes, and meet once
over TCP before `parallel.start` hands their names to `jax.distributed.initialize`.

JAX could find them itself, if it were given no names. Why it is not (checked with jax 0.10.2):

- If a process does not come, JAX's runtime aborts (SIGABRT and a C++ stack) and no exception
  reaches Python. Meeting first turns that into a message, but needs the coordinator's address
  beforehand. JAX finds the address while it connects and has no public function that returns it.
- SLURM: JAX counts the tasks of the job, not of the step. It gives all steps of a job the same
  port. A task gets one GPU, even if it is alone on a node with several. The host's name is cut at a
  bracket, so that the rest is lost (``rack1-[7-8]-ib``).
- Kubernetes: JAX asks the cluster's API, for which it needs the package ``kubernetes`` and a
  service account that may read pods; here an environment variable is enough.

MPI is not supported: srun starts the tasks of such a cluster, or the three flags name them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import socket
import time
from collections.abc import Mapping

from mtbus_jax.errors import UserError

# SLURM: one port per job, from the range that no service is assigned to. Kubernetes: a pod has its
# own address, so any port will do.
_FIRST_PORT, _PORTS = 61440, 4096
_POD_PORT = 61440

_RETRY_SECONDS = 0.2
_ANSWER_SECONDS = 5.0  # patience with one connection
_LINE_BYTES = 4096
# The two messages: who calls, and the answer of process 0, in which "" means go on.
_GREETING = {"process": int, "processes": int}
_VERDICT = {"verdict": str}


@dataclasses.dataclass(frozen=True)
class Cluster:
    """This process among those of the run.

    Attributes:
      coordinator: ``host:port`` on which process 0 listens, the same in all processes.
      processes: how many there are, at least 2.
      process: number of this one, from 0.
      local_devices: which of the GPUs that this process sees are its own; None for all.
    """

    coordinator: str
    processes: int
    process: int
    local_devices: tuple[int, ...] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host (without brackets) and port of the coordinator."""
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)


def find_cluster(
    *,
    coordinator: str | None,
    processes: int | None,
    process: int | None,
    from_environment: bool,
    environ: Mapping[str, str] = os.environ,
) -> Cluster | None:
    """The cluster that the flags of main.py ask for, or None for a single process.

    Args:
      coordinator: ``--coordinator``.
      processes: ``--processes``.
      process: ``--process``.
      from_environment: ``--distributed``: ask SLURM or Kubernetes instead.
      environ: environment variables.

    Raises:
      UserError: for flags that are incomplete, contradict each other or are out of range, and for
        an environment that does not say enough.
    """
    flags = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    given = [name for name, value in flags.items() if value is not None]
    if from_environment:
        if given:
            raise UserError(
                f"--distributed takes the processes from SLURM or Kubernetes; {given[0]} names "
                "them by hand. Give one or the other."
            )
        found = _from_environment(environ)
    elif not given:
        return None
    else:
        missing = [name for name in flags if name not in given]
        if missing:
            raise UserError(
                f"{' and '.join(missing)} missing: several processes need --coordinator=HOST:PORT, "
                "--processes=N and --process=I, all three."
            )
        found = Cluster(coordinator, processes, process)
    _check(found)
    return found if found.processes > 1 else None


def _check(cluster: Cluster) -> None:
    host, _, port = cluster.coordinator.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(
            f"coordinator {cluster.coordinator!r} is not HOST:PORT, such as node1:12345 with a "
            "free port (1 to 65535) of the machine that runs process 0."
        )
    if cluster.processes < 1:
        raise UserError(f"processes={cluster.processes}: the run needs at least one process.")
    if not 0 <= cluster.process < cluster.processes:
        raise UserError(
            f"process={cluster.process}: with {cluster.processes} processes the numbers are 0 to "
            f"{cluster.processes - 1}, each given once."
        )


def _from_environment(environ: Mapping[str, str]) -> Cluster:
    if "SLURM_JOB_ID" in environ:
        return _from_slurm(environ)
    if "KUBERNETES_SERVICE_HOST" in environ:
        return _from_kubernetes(environ)
    raise UserError(
        "--distributed: neither SLURM (SLURM_JOB_ID) nor Kubernetes (KUBERNETES_SERVICE_HOST) has "
        "started this process. Give --coordinator=HOST:PORT --processes=N --process=I instead."
    )


def _from_slurm(environ: Mapping[str, str]) -> Cluster:
    """One task of an srun step is one process; process 0 is on the first node of the step."""
    mend = "Start main.py with srun, as in srun python main.py --distributed …"
    if "SLURM_STEP_NODELIST" not in environ:
        raise UserError(f"--distributed: this process is not a task of srun. {mend}")
    tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS"
    processes = _number(environ, tasks, mend)
    job = _number(environ, "SLURM_JOB_ID", mend)
    # Two steps of one job may run at once.
    step = environ.get("SLURM_STEP_ID", "0")
    port = _FIRST_PORT + (job + (int(step) if step.isdigit() else 0)) % _PORTS
    return Cluster(
        f"{_first_host(environ['SLURM_STEP_NODELIST'])}:{port}",
        processes,
        _number(environ, "SLURM_PROCID", mend),
        _slurm_devices(environ, _number(environ, "SLURM_LOCALID", mend)),
    )


def _first_host(nodes: str) -> str:
    """First host of SLURM's notation: ``node[03-07,9],other`` → ``node03``."""
    match = re.match(r"([^,\[]+)(?:\[(\w+)[^\]]*\]([^,]*))?", nodes)
    if match is None:
        raise UserError(f"--distributed: SLURM_STEP_NODELIST={nodes!r} names no host.")
    return "".join(part or "" for part in match.groups())


def _slurm_devices(environ: Mapping[str, str], local_task: int) -> tuple[int, ...] | None:
    """GPUs of one task; if several tasks on a node see the same GPUs, these are divided."""
    # Such as 2(x3),1: two tasks on each of three nodes, one on the fourth.
    per_node = re.findall(r"(?<!x)\b\d+", environ.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    tasks = max(map(int, per_node), default=1)
    says = {"SLURM_GPUS_PER_TASK", "SLURM_GPU_BIND", "SLURM_TRES_PER_TASK"} & environ.keys()
    bound = says and "none" not in environ.get("SLURM_GPU_BIND", "").split(",")
    visible = [gpu for gpu in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    if tasks == 1 or bound or len(visible) < tasks:
        return None
    return tuple(range(local_task, len(visible), tasks))


def _from_kubernetes(environ: Mapping[str, str]) -> Cluster:
    """One pod of an Indexed Job or a JobSet is one process; pod 0 is process 0."""
    process = _number(
        environ, "JOB_COMPLETION_INDEX", "Set completionMode: Indexed in the Job's specification."
    )
    processes = _number(
        environ,
        "JAX_NUM_PROCESSES",
        "Kubernetes does not tell a pod how many there are: set it to the Job's parallelism in the "
        "container's env.",
    )
    coordinator = environ.get("JAX_COORDINATOR_ADDRESS")
    if coordinator is None and processes > 1:
        # A pod of an Indexed Job is called JOB-INDEX, one of a JobSet SET-JOB-NUMBER-INDEX.
        name, _, domain = socket.getfqdn().partition(".")
        stem, _, index = name.rpartition("-")
        if not domain or index != str(process):
            raise UserError(
                "--distributed: the name of pod 0 cannot be derived from this pod's name, "
                f"{socket.getfqdn()}. Give the pods a headless Service (subdomain), or set "
                "JAX_COORDINATOR_ADDRESS=HOST:PORT in the container's env."
            )
        coordinator = f"{stem}-0.{domain}:{_POD_PORT}"
    return Cluster(coordinator or f"localhost:{_POD_PORT}", processes, process)


def _number(environ: Mapping[str, str], name: str, mend: str) -> int:
    try:
        return int(environ[name])
    except KeyError:
        raise UserError(f"--distributed: {name} is not set. {mend}") from None
    except ValueError:
        raise UserError(
            f"--distributed: {name}={environ[name]!r} is not a number. {mend}"
        ) from None


def meet(cluster: Cluster, *, timeout: float) -> None:
    """Returns in every process once all of them are there.

    The port of the coordinator is free again afterwards.

    Args:
      cluster: this process and the others.
      timeout: seconds to wait for them.

    Raises:
      UserError: in those that came, naming who did not, or what they disagree on.
    """
    deadline = time.monotonic() + timeout
    if cluster.process == 0:
        _receive(cluster, deadline, timeout)
    else:
        _report(cluster, deadline, timeout)


def _receive(cluster: Cluster, deadline: float, timeout: float) -> None:
    """Process 0: collects the others, then tells them all to go on, or why not."""
    port = cluster.address[1]
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        server = socket.create_server(("", port), family=family, dualstack_ipv6=dual)
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen on port {port} of this machine ({error.strerror}). Choose "
            "another port for the coordinator."
        ) from None
    with server, contextlib.ExitStack() as stack:
        arrived: dict[int, socket.socket] = {}
        told: list[socket.socket] = []
        verdict = ""
        while not verdict:
            # One that was stopped meanwhile may come again.
            arrived = {who: link for who, link in arrived.items() if not _is_closed(link)}
            if len(arrived) == cluster.processes - 1:
                break
            left = deadline - time.monotonic()
            server.settimeout(max(left, 0.01))
            try:
                connection = stack.enter_context(server.accept()[0])
            except TimeoutError:
                gone = sorted(set(range(1, cluster.processes)) - arrived.keys())
                verdict = (
                    f"of {cluster.processes} processes, number {', '.join(map(str, gone))} did not "
                    f"come to {cluster.coordinator} within {timeout:.0f} seconds. Start every "
                    "process with the same coordinator and number of processes."
                )
                break
            greeting = _read(connection, time.monotonic() + _ANSWER_SECONDS, _GREETING)
            if greeting is None:
                continue  # a port scanner, or a process that was stopped again
            process = greeting["process"]
            if greeting["processes"] != cluster.processes:
                verdict = (
                    f"process {process} was started with processes={greeting['processes']}, "
                    f"process 0 with {cluster.processes}; the number must be the same everywhere."
                )
            elif process in arrived and not _is_closed(arrived[process]):
                verdict = (
                    f"two processes were started as process {process}; give each its own number."
                )
            arrived[process] = connection
            told.append(connection)
        for connection in told:
            _send(connection, {"verdict": verdict})
            # The side that closes first keeps the port busy for a while; let it be the other one.
            _read(connection, time.monotonic() + _ANSWER_SECONDS, _GREETING)
    if verdict:
        raise UserError(verdict)


def _report(cluster: Cluster, deadline: float, timeout: float) -> None:
    """Another process: calls until process 0 answers, then waits for its verdict."""
    reason = ""
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(cluster.address, timeout=_left(deadline)) as connection:
                _send(connection, {"process": cluster.process, "processes": cluster.processes})
                # Process 0 has its own deadline and says when it gives up.
                answer = _read(connection, deadline + timeout, _VERDICT)
        except OSError as error:  # also a host without an address yet
            reason = f" ({error.strerror or error})"
            answer = None
        if answer is not None:
            if answer["verdict"]:
                raise UserError(answer["verdict"])
            return
        time.sleep(_RETRY_SECONDS)
    raise UserError(
        f"process {cluster.process} cannot reach process 0 at {cluster.coordinator}{reason} after "
        f"{timeout:.0f} seconds. Is it started, and is that port open between the machines?"
    )


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.01)


def _send(connection: socket.socket, message: dict) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(message).encode() + b"\n")


def _read(connection: socket.socket, deadline: float, fields: dict[str, type]) -> dict | None:
    """One line of JSON with these fields; None if the other side sends anything else or is gone."""
    received = b""
    try:
        while not received.endswith(b"\n") and len(received) < _LINE_BYTES:
            connection.settimeout(_left(deadline))
            part = connection.recv(_LINE_BYTES)
            if not part:
                return None
            received += part
        message = json.loads(received)
    except (OSError, ValueError):
        return None
    if not isinstance(message, dict):
        return None
    return message if {name: type(value) for name, value in message.items()} == fields else None


def _is_closed(connection: socket.socket) -> bool:
    """Whether the process at the other end was stopped (and perhaps started again) meanwhile."""
    connection.settimeout(0)
    try:
        return not connection.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        return True
