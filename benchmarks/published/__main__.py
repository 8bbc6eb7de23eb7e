"""The published experiments, on whatever machine is at hand.

run      train and certify methods at noise levels by a recipe, within a time budget; run it again to go on. Needs no
         DVC, MLflow, Prefect or Great Expectations.
adopt    take runs over into the workspace that DVC tracks, so that `dvc repro` evaluates and registers them.
compare  print the ACRs of two sets of runs pair by pair, for example of two precisions or two seeds.
page     write results/README.md from the runs kept under results/.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.published.adopt import adopt
from benchmarks.published.runs import Plan, run_all
from components.parsing import ParamsError
from components.training.objectives import OBJECTIVES
from pipelines.cli import BAD_PARAMETERS, FAILED, add_max_minutes


def main() -> int:
    options = parse()
    try:
        if options.command == "run":
            plan = Plan(options.recipe, options.out, options.epochs, dict(options.set), options.packs, options.data)
            return run_all(plan, options.methods, options.sigmas, 60 * options.max_minutes)
        if options.command == "adopt":
            adopt(options.runs)
        elif options.command == "compare":
            from benchmarks.published.compare import compare  # reads by way of the page

            print(compare(*options.sets))
        else:
            from benchmarks.published.page import write_page  # draws, with a library that computing does not need

            print(write_page(options.results))
    except ParamsError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_PARAMETERS
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.published", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train and certify, within a time budget")
    run.add_argument("--recipe", type=Path, required=True, help="a complete params file, such as recipes/mnist.yaml")
    run.add_argument("--out", type=Path, required=True, help="folder of these runs, such as results/mnist")
    run.add_argument("--methods", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES), help="default: all")
    run.add_argument("--sigmas", nargs="+", help="default: all of the recipe's")
    run.add_argument(
        "--epochs", type=int, help="default: the recipe's; else decay and warm-up are scaled in proportion to them"
    )
    run.add_argument("--set", nargs="+", type=setting, default=[], metavar="KEY=VALUE", help="such as certify.n=10000")
    run.add_argument("--data", help="where the data set lies; default: the recipe's prepare.root")
    run.add_argument(
        "--packs", type=Path, help="folder of one archive per run, read at the start, written after a step"
    )
    add_max_minutes(run)
    take = commands.add_parser("adopt", help="take runs over into the workspace that DVC tracks")
    take.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="such as results/mnist/smoothmix/0.5")
    pair = commands.add_parser("compare", help="two sets of runs, pair by pair")
    pair.add_argument("sets", nargs=2, type=Path, metavar="SET", help="such as results/mnist")
    page = commands.add_parser("page", help="write the page of results")
    page.add_argument("--results", type=Path, default=Path("results"), help="default: %(default)s")
    return parser.parse_args()


def setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text} is not KEY=VALUE")
    return key, value


if __name__ == "__main__":
    sys.exit(main())
