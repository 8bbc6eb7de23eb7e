"""What every stage's command line shares: parameters checked first, errors in one line, exit codes, several processes.

Exit codes: 0 done, 1 failed, 2 bad parameters or usage, 75 stopped early with its progress kept.
"""

import argparse
import io
import math
import multiprocessing
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from components import params as parameters
from components.params import Params
from components.parsing import ParamsError
from components.tools.roll_call import LostRank
from components.tools.world import World, joined
from pipelines import artifacts, watchdog

DONE, FAILED, BAD_PARAMETERS, STOPPED_EARLY = 0, 1, 2, 75
RESTARTS = 3
"""How often a stage's processes are restarted after one of them was killed."""


class StoppedEarly(Exception):
    """A stage stopped on request or at its time budget, with its progress kept; the message says how far it came."""


def print_any_text() -> None:
    """Keep print from failing: a character that the output cannot encode, such as ± or σ, becomes a question mark."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def load_params() -> Params:
    """The checked params.yaml; exits with 2 and one line that names what is wrong. A command calls it first."""
    print_any_text()
    try:
        return parameters.load(artifacts.PARAMS)
    except ParamsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_PARAMETERS)


def program() -> str:
    """How this command is called."""
    return f"python -m pipelines.{Path(sys.argv[0]).stem}"


def run_stage(stage: Callable[[Params], None], description: str | None) -> None:
    """Run a stage that treats all noise levels at once."""
    argparse.ArgumentParser(prog=program(), description=description).parse_args()
    params = load_params()
    watchdog.watch()
    sys.exit(guard(stage, params))


def run_stage_at_sigma(
    stage: Callable[..., None],
    description: str | None,
    *,
    processes: Callable[[Params], int],
    add_options: Callable[[argparse.ArgumentParser], None],
) -> None:
    """Run a stage at the noise level given by `--sigma`.

    Args:
        stage: called as stage(params, sigma, **options); a function of the main module or of an imported one.
        processes: how many processes the parameters ask for; each runs the stage (see `launch`).
        add_options: adds the stage's own options.
    """
    parser = argparse.ArgumentParser(prog=program(), description=description)
    parser.add_argument("--sigma", type=float, required=True, help="one of the noise_levels of params.yaml")
    add_options(parser)
    options = vars(parser.parse_args())
    params, sigma = load_params(), options["sigma"]
    if sigma not in params.sigmas:
        allowed = ", ".join(params.noise_levels)
        print(f"error: --sigma is {sigma}: params.yaml has the noise levels {allowed}", file=sys.stderr)
        sys.exit(BAD_PARAMETERS)
    started_by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    if not started_by_torchrun:
        watchdog.watch()
    if processes(params) > 1 and not started_by_torchrun:
        sys.exit(launch(processes(params), stage, params, options))
    sys.exit(guard(stage, params, **options))


def add_max_minutes(parser: argparse.ArgumentParser) -> None:
    """Add the time budget of a stage that can be continued later."""
    parser.add_argument(
        "--max-minutes",
        type=positive,
        default=math.inf,
        help="save and stop after this time, with exit code 75 (default: never)",
    )


def whole_number(text: str) -> int:
    """A whole number >= 1 on a command line."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number >= 1")
    return value


def positive(text: str) -> float:
    """A number > 0 on a command line."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number > 0")
    return value


def guard(stage: Callable[..., None], *arguments: Any, **options: Any) -> int:
    """Run a stage and return its exit code; print one line on stderr if it did not succeed.

    Of several processes only the one that fails prints; if all fail alike, one prints. If one fails, the others end
    with its exit code.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # the first is ignored by what `nohup ... &` starts
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C: the KeyboardInterrupt below
    ranks, line, code, lost = World(), "", DONE, False
    with ExitStack() as open_world:
        try:
            ranks = open_world.enter_context(joined())
            with shared_memory_in_one_line():
                stage(*arguments, **options)
        except BrokenPipeError:  # the reader closed the pipe, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at its end
        except (ValueError, FloatingPointError, OSError) as error:
            line, code, lost = f"error: {error}", FAILED, isinstance(error, LostRank)
        except StoppedEarly as stop:
            line, code = f"{stop}; all of it is kept: run the same command again to go on", STOPPED_EARLY
        except KeyboardInterrupt:
            line, code = "stopped; what is finished is kept: run the same command again to go on", STOPPED_EARLY
        except BaseException as error:
            ranks.last_words(FAILED, f"error: {type(error).__name__}: {error}")
            raise
        code, line = ranks.last_words(code, line, lost=lost)
    if line:
        print(line, file=sys.stderr)
    return code


@contextmanager
def shared_memory_in_one_line() -> Iterator[None]:
    """Turn what torch raises when its worker processes find no room in /dev/shm, 64 MiB in a container by default, into
    an OSError with the remedy."""
    try:
        yield
    except RuntimeError as error:
        if "shared memory" not in str(error):
            raise
        size = shutil.disk_usage("/dev/shm").total >> 20
        raise OSError(
            f"/dev/shm has {size} MiB, too little for the worker processes that decode images: give this container "
            "more, --shm-size=8g with docker and podman, and start it again"
        ) from None


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Within the block, SIGINT and SIGTERM only make the yielded function return True."""
    asked = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda received, frame: asked.append(received)) for number in numbers]
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def launch(processes: int, stage: Callable[..., None], params: Params, options: dict[str, Any]) -> int:
    """Run a stage in several processes on this machine and give its exit code.

    torch's elastic agent starts them, as `torchrun --standalone` does. If one is killed or crashes, all are restarted
    and continue from what the stage has saved. A stage that ends with an exit code of its own is not restarted. SIGINT
    and SIGTERM are passed on to all.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=RESTARTS,
        monitor_interval=0.5,
    )
    try:
        codes = elastic_launch(config, _in_worker)(stage, params, options)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        print(
            f"error: process {rank} of {processes} ended with exit code {failure.exitcode} after {RESTARTS} restarts",
            file=sys.stderr,
        )
        return FAILED
    except (SignalException, KeyboardInterrupt):
        return STOPPED_EARLY
    return int(max(codes.values()))


def _in_worker(stage: Callable[..., None], params: Params, options: dict[str, Any]) -> int:
    code = guard(stage, params, **options)
    launcher = multiprocessing.parent_process()
    if launcher is not None and not launcher.is_alive():
        os._exit(code)  # torch would wait for ever to hand the result over
    return code
