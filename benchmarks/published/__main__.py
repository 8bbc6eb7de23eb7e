"""The published experiments, on whatever machine is at hand.

run      train and certify methods at noise levels by a recipe, within a time budget; run it again to go on. Needs no
         DVC, MLflow, Prefect or Great Expectations.
adopt    take runs over into the workspace that DVC tracks, so that `dvc repro` evaluates and registers them.
compare  print the ACRs of two sets of runs pair by pair, for example of two precisions or two seeds.
table    print runs beside the published figures, as LaTeX, CSV or Markdown.
figures  draw certified accuracy over the radius for a paper's column, as PDF and SVG.
page     write results/README.md from the runs kept under results/.
"""

import argparse
import math
import sys
from pathlib import Path

from benchmarks.published.adopt import adopt
from benchmarks.published.runs import Plan, run_all
from components.parsing import ParamsError
from components.training.objectives import OBJECTIVES
from pipelines.cli import BAD_PARAMETERS, FAILED, add_max_minutes

RADII = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]


def main() -> int:
    options = parse()
    try:
        if options.command == "run":
            plan = Plan(
                options.recipe,
                options.out,
                options.epochs,
                dict(options.set),
                options.packs,
                options.data,
                options.seeds,
            )
            return run_all(plan, options.methods, options.sigmas, 60 * options.max_minutes)
        if options.command == "adopt":
            adopt(options.runs)
        elif options.command == "compare":
            from benchmarks.published.compare import compare  # reads by way of the page

            first, second = options.sides
            print(compare(first, second, options.radii))
        elif options.command == "table":
            from benchmarks.published.tables import table

            print(table(options.sets or all_sets(), options.format, options.radii))
        elif options.command == "figures":
            from benchmarks.published.figures import write_figures

            print(*(f"written: {file}" for file in write_figures(options.sets or all_sets(), options.out)), sep="\n")
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
        "--seeds", nargs="+", type=int, metavar="SEED", help="each in a folder of its own; default: the recipe's alone"
    )
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
    pair = commands.add_parser("compare", help="two sets of runs or tables, pair by pair")
    what = "a set, such as results/mnist; a workspace, such as .; a table; a folder of tables METHOD_SIGMA.tsv"
    pair.add_argument("sides", nargs=2, type=Path, metavar="SIDE", help=what)
    listed = commands.add_parser("table", help="runs beside the published figures")
    listed.add_argument("--format", choices=["latex", "csv", "markdown"], default="markdown", help="default: markdown")
    for takes_radii in (pair, listed):
        takes_radii.add_argument(
            "--radii", nargs="+", type=radius, default=RADII, metavar="R", help="of certified accuracy"
        )
    figures = commands.add_parser("figures", help="certified accuracy over the radius, as PDF and SVG")
    figures.add_argument("--out", type=Path, required=True, help="folder to write to")
    for takes_sets in (listed, figures):
        takes_sets.add_argument(
            "sets",
            nargs="*",
            type=Path,
            metavar="SET",
            help="default: all under results/, and this workspace's outputs",
        )
    page = commands.add_parser("page", help="write the page of results")
    page.add_argument("--results", type=Path, default=Path("results"), help="default: %(default)s")
    return parser.parse_args()


def all_sets() -> list[Path]:
    """The sets under results/, and the workspace if it holds a table."""
    from benchmarks.published.kept import holds_runs

    found = [folder for folder in [*sorted(Path("results").glob("*/")), Path()] if holds_runs(folder)]
    if not found:
        raise ValueError("neither results/ nor outputs/certificates/ holds a finished run: name a set")
    return found


def radius(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError
    return value


def setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text} is not KEY=VALUE")
    return key, value


if __name__ == "__main__":
    sys.exit(main())
