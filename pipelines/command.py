"""What every stage's command line shares: parameters checked first, errors in one line, exit codes.

Exit codes: 0 done, 1 failed, 2 bad parameters or usage, 75 stopped early with its progress kept.
"""

import argparse
import sys
from collections.abc import Callable

from components import params as parameters
from components.params import Params, ParamsError
from pipelines import artifacts

FAILED, BAD_PARAMETERS, STOPPED_EARLY = 1, 2, 75


def load_params() -> Params:
    """The checked params.yaml; exits with 2 and one line that names what is wrong."""
    try:
        return parameters.load(artifacts.PARAMS)
    except ParamsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_PARAMETERS)


def run_stage(stage: Callable[[Params], None], description: str | None) -> None:
    """Run a stage that treats all noise levels at once."""
    argparse.ArgumentParser(description=description).parse_args()
    params = load_params()
    _guard(lambda: stage(params))


def run_stage_at_sigma(stage: Callable[[Params, float], None], description: str | None) -> None:
    """Run a stage at the noise level given by `--sigma`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--sigma", type=float, required=True, help="one of the noise_levels of params.yaml")
    sigma = parser.parse_args().sigma
    params = load_params()
    if sigma not in params.sigmas:
        allowed = ", ".join(params.noise_levels)
        print(f"error: --sigma is {sigma}: params.yaml has the noise levels {allowed}", file=sys.stderr)
        sys.exit(BAD_PARAMETERS)
    _guard(lambda: stage(params, sigma))


def _guard(work: Callable[[], None]) -> None:
    try:
        work()
    except (ValueError, FloatingPointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        print("stopped; what is finished is kept: run the same command again to go on", file=sys.stderr)
        sys.exit(STOPPED_EARLY)
