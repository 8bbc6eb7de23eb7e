"""Starts python commands as forks of one process that has the heavy libraries imported.

Importing torch, MLflow and scipy takes seconds, and tests start many commands. [*PYTHON, "-m", ...] is used like
[sys.executable, "-m", ...]: a process with a folder, environment, output, signals and exit code of its own. It is a
small client, whose arguments a server runs in a fork of itself; if either is killed, so is the other.

The server imports libraries only, never this project, as copies of the project carry their own code. A command starts
really where there is no server, where its options are not -m or -c, and where it differs from the server in a variable
that may be read while a library is imported. What is not that of a real start: the process's parent, umask and limits
are the server's, numpy's global random state is the same in all, and modules are not torn down at the end.
"""

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

PYTHON = [sys.executable, "-I", "-S", __file__]
SOCKET = "TESTS_WARM_START"
"""Environment variable: where the server listens."""
LIBRARIES = (
    "torch._dynamo",  # which torch's optimizers and its meta device import when they are first used
    "torch.distributed.run",
    "filelock",
    "pyarrow.pandas_compat",
    "scipy.stats",
    "statsmodels.stats.multitest",
    "statsmodels.stats.proportion",
    "sklearn.datasets",
    "safetensors.torch",
    "git",
    "mlflow.pyfunc",
    "mlflow.tracing.processor.mlflow_v3",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
    "great_expectations.expectations",
    "vl_convert",
)
LATE = ("PATH", "PYTHONPATH", "PYTEST_", "GIT_", "DVC_", "SMOOTHMIX_", "MLFLOW_TRACKING_URI", "MLFLOW_HTTP_REQUEST_")
LATE += (
    "RANK",
    "WORLD_SIZE",
    "MASTER_",
    "TORCHELASTIC_",
    "LINES",
    "COLUMNS",
    "PREFECT_",
    "TORCHINDUCTOR_CACHE_DIR",
    "_TORCHINDUCTOR_",  # set by what is compiled, for what it compiles
    "CUBLAS_",
    "KMP_",
)
"""How variables begin that no library reads while it is imported."""


def start_server() -> Callable[[], None]:
    """Start a server for this process and those that it starts; returns what ends it, and it ends with this process."""
    import subprocess
    import tempfile

    if not hasattr(os, "pidfd_open"):
        return lambda: None
    folder = tempfile.TemporaryDirectory(prefix="warm-start-")
    os.environ[SOCKET] = f"{folder.name}/socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.environ[SOCKET])
        listener.listen(64)
        number, silent = listener.fileno(), subprocess.DEVNULL
        command = [sys.executable, __file__, "serve", str(number)]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=silent, stderr=silent, pass_fds=[number])

    def end() -> None:
        server.communicate()
        folder.cleanup()

    return end


# --- the client ------------------------------------------------------------------------------------------------------


def ask(arguments: list[str]) -> NoReturn:
    """Have the server run the command and end as it does, or start it really."""
    connection = socket.socket(socket.AF_UNIX)
    answers = connection.makefile()
    pid = 0
    if SOCKET in os.environ and arguments[0] in ("-m", "-c"):
        connection.connect(os.environ[SOCKET])
        socket.send_fds(connection, [b" "], [0, 1, 2])
        connection.sendall(json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode() + b"\n")
        pid = int(answers.readline())
    if not pid:
        os.execv(sys.executable, [sys.executable, *arguments])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, frame: os.kill(pid, received))
    code = os.waitstatus_to_exitcode(int(answers.readline()))
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL's cannot be set, and need not
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


# --- the server ------------------------------------------------------------------------------------------------------


def serve(listener: socket.socket) -> list[str]:
    """Fork for each client until the standard input closes; returns in the forks, with the command's arguments."""
    import select

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    own = dict(os.environ)
    poll = select.poll()
    poll.register(0, 0)  # tells when it closes, as the clients do
    poll.register(listener, select.POLLIN)
    running: dict[int, tuple[socket.socket, int, int]] = {}
    while True:
        ready = poll.poll()[0][0]
        if ready == 0:
            for _, _, pid in running.values():
                os.kill(pid, signal.SIGKILL)
            os._exit(0)
        if ready != listener.fileno():
            client, end, pid = running[ready]
            if ready == client.fileno():
                os.kill(pid, signal.SIGKILL)
            answer(client, os.waitpid(pid, 0)[1])
            for number in (client.fileno(), end):
                poll.unregister(number)
                del running[number]
            client.close()
            os.close(end)
            continue
        client, _ = listener.accept()
        streams = socket.recv_fds(client, 1, 3)[1]
        arguments, folder, environment = json.loads(client.makefile().readline())
        import_libraries()
        really = differs(environment, own)
        pid = 0 if really else os.fork()
        if not really and not pid:
            become(streams, folder, environment)
            return arguments
        for stream in streams:
            os.close(stream)
        answer(client, pid)
        if pid:
            end = os.pidfd_open(pid)
            poll.register(client, 0)
            poll.register(end, select.POLLIN)
            running[client.fileno()] = running[end] = client, end, pid


def answer(client: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # it may be gone
        client.sendall(f"{number}\n".encode())


def import_libraries() -> None:
    """Import them once; a thread would be missing in the forks."""
    import gc
    import importlib
    import threading

    if LIBRARIES[-1] not in sys.modules:
        for name in LIBRARIES:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()  # else the first collection of each fork copies all memory
    assert threading.active_count() == 1


def differs(environment: dict[str, str], own: dict[str, str]) -> bool:
    """Whether libraries might have been imported otherwise."""
    changed = {name for name, _ in environment.items() ^ own.items()}
    return not all(name.startswith(LATE) for name in changed)


def become(streams: list[int], folder: str, environment: dict[str, str]) -> None:
    """Take over what python takes over from who starts it."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    encoding, errors = sys.stdout.encoding, sys.stdout.errors
    sys.stdout = open(1, "w", encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    first = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.path[:0] = first
    files = {file.removesuffix(".py") for entry in first if os.path.isdir(entry) for file in os.listdir(entry)}
    for name in [name for name in sys.modules if name.partition(".")[0] in files]:
        del sys.modules[name]  # there is one of the same name that comes first


def execute(option: str, what: str, *rest: str) -> NoReturn:
    """Run -m MODULE or -c PROGRAM and end, as python does."""
    import atexit
    import runpy
    import threading
    import types

    code: object = None
    try:
        if option == "-m":
            sys.argv = [what, *rest]
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            sys.argv = ["-c", *rest]
            sys.path[0] = ""
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(what, "<string>", "exec"), main.__dict__)
    except SystemExit as end:
        code = end.code
        if not isinstance(code, int | None):
            print(code, file=sys.stderr)
            code = 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
        if isinstance(error, KeyboardInterrupt):
            atexit.register(os.kill, os.getpid(), signal.SIGINT)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit((code or 0) & 0xFF)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        del sys.path[0]  # this folder
        execute(*serve(socket.socket(fileno=int(sys.argv[2]))))
    else:
        ask(sys.argv[1:])
