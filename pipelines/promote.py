"""Compare each noise level's challenger with its champion, and promote challengers that are proven better.

`decide` (the default) judges, stores the evidence, promotes where it may and otherwise asks a person. `approve` and
`refuse` answer; `rollback` makes the previous champion champion again. Each command can be repeated: the next call
finishes what an interrupted one left undone, and reports promotions that it did not report. The exit code is 0 whatever
the verdict.
"""

import argparse
import getpass
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from components.evaluation.report import text_table
from components.evaluation.verdict import markdown
from components.params import Params, level_key
from components.registry import wait_briefly
from components.registry.aliases import BY, EXPIRES, KEY, STAYS, OutdatedVerdict
from components.registry.connection import in_one_line
from components.registry.tracking import Tracking
from components.tools import notify
from components.tools.files import write_json, write_text
from components.tools.hashing import hash_value
from pipelines import artifacts, watchdog
from pipelines.champion_challenger import Contest, connect, promotions_at, unreported, verdicts
from pipelines.cli import BAD_PARAMETERS, guard, load_params

ATTEMPTS = 3
"""How often to judge again if another process changes the champion meanwhile."""


@dataclass(frozen=True)
class Level:
    """The outcome at one noise level; an entry of verdict.json."""

    sigma: str
    model: str
    challenger: str
    champion: str | None
    verdict: str
    """PROMOTE, HOLD, REJECT, or NONE where there is nothing to decide."""
    reasons: list[str]
    approval: str = "not needed"
    """Or `asked`: the question is open."""
    promoted: bool = False
    """By this call, or by an earlier one that did not report it."""
    superseded: bool = False
    """It was promoted, and another version has become champion since."""
    expires: str | None = None
    """Deadline of the question: UTC, ISO 8601."""
    key: str | None = None
    evidence: dict[str, Any] | None = None


def decide(params: Params) -> None:
    """Judge every noise level, store the evidence, promote or ask; verdict.json and .md hold the outcomes."""
    if artifacts.in_experiment():
        raise ValueError("an experiment promotes nothing: apply it and run the pipeline first")
    tracking = connect(params)
    tracking.sweep()
    for _ in range(ATTEMPTS):
        try:
            levels = [act(contest, evidence) for contest, evidence in verdicts(params, tracking)]
            break
        except OutdatedVerdict as change:
            print(f"{change}; judging anew")
    else:
        raise ValueError(f"the champion changed {ATTEMPTS} times meanwhile: run this again when nobody else does")
    report(params, tracking, with_unreported(levels, params, tracking))


def report(params: Params, tracking: Tracking, levels: list[Level]) -> None:
    """Write, print and send the outcomes of the noise levels; a promotion counts as reported after all three."""
    write_json(artifacts.PROMOTION / "verdict.json", {"levels": [asdict(level) for level in levels]})
    write_text(artifacts.PROMOTION / "verdict.md", page(levels))
    show(levels)
    told = [level.key for level in levels if level.key]
    facts: dict[str, object] = {
        "levels": [{k: v for k, v in asdict(level).items() if k != "evidence"} for level in levels]
    }
    if not told or notify.send("verdict", facts, hash_value(told), artifacts.notifications()):
        for level in levels:
            if level.promoted:
                promotions_at(params, tracking, float(level.sigma)).mark_reported(level.challenger)


def with_unreported(levels: list[Level], params: Params, tracking: Tracking) -> list[Level]:
    """The levels, preceded by the promotions of earlier calls that no report has mentioned."""
    now = {(level.model, level.challenger): level for level in levels}
    earlier: list[Level] = []
    for sigma, version, champion, evidence in unreported(params, tracking):
        level = now.get((version.name, str(version.version)))
        if level is not None and level.promoted:
            continue
        if level is not None and champion:  # there is nothing else to report about it
            levels = [other for other in levels if other is not level]
        known = evidence or {}
        reasons = known.get("reasons", ["its evidence is not in the registry any more"])
        reasons = [*reasons, "promoted by an earlier call, which did not report it"]
        found = Level(level_key(sigma), version.name, str(version.version), known.get("champion"), "PROMOTE", reasons)
        key = version.tags.get(KEY)
        earlier.append(replace(found, promoted=True, superseded=not champion, key=key, evidence=evidence))
    return earlier + levels


# --- acting ----------------------------------------------------------------------------------------------------------


def act(contest: Contest, evidence: dict[str, Any] | None) -> Level:
    """Promote or ask, as the verdict and the parameters say."""
    promotions, number = contest.promotions, str(contest.challenger.version)
    champion = str(contest.champion.version) if contest.champion else None
    level = Level(level_key(contest.sigma), promotions.name, number, champion, "NONE", [contest.nothing_new or ""])
    if evidence is None:
        return level
    level = replace(level, verdict=evidence["verdict"], reasons=evidence["reasons"], key=contest.key, evidence=evidence)
    if level.verdict == "REJECT":
        return level
    state = promotions.state(number)
    if level.verdict == "PROMOTE" and contest.policy.approval == "on_hold" and state not in STAYS:
        promotions.promote(number, contest.key, by="verdict")
        return replace(level, promoted=True)
    state = promotions.ask(number, contest.policy.approval_hours)
    tags = promotions.version(number).tags
    if state == "open":
        return replace(level, approval="asked", expires=tags[EXPIRES])
    by = f" by {tags[BY]}" if BY in tags and state in STAYS else ""
    return replace(level, reasons=[*level.reasons, f"{state}{by}: the champion stays"])


def page(levels: list[Level]) -> str:
    """verdict.md."""
    sections = [
        markdown(level.evidence) if level.evidence else f"## NONE: {level.model}\n- {level.reasons[0]}\n"
        for level in levels
    ]
    rows = [[level.sigma, level.verdict, outcome(level)] for level in levels]
    table = ["| sigma | verdict | |", "|---:|---|---|", *("| " + " | ".join(row) + " |" for row in rows)]
    return "# Promotion\n\n" + "\n".join(table) + "\n\n" + "\n".join(sections)


def outcome(level: Level) -> str:
    if level.promoted:
        return f"v{level.challenger} " + ("was champion, until another was" if level.superseded else "is champion now")
    if level.approval == "asked":
        return f"v{level.challenger} waits for an answer until {level.expires}"
    return f"v{level.champion} stays champion" if level.champion else "no champion"


def show(levels: list[Level]) -> None:
    """Print the verdicts, why, and how to answer."""
    header = ["sigma", "model", "challenger", "champion", "verdict", "now"]
    rows = []
    for level in levels:
        numbers = [f"v{number}" if number else "-" for number in (level.challenger, level.champion)]
        rows.append([level.sigma, level.model, *numbers, level.verdict, outcome(level)])
    print(text_table(header, rows))
    for level in levels:
        for reason in level.reasons:
            print(f"sigma {level.sigma}: {reason}")
    for level in levels:
        if level.approval == "asked":
            print(f"answer: python -m pipelines.promote approve --sigma {level.sigma}   (or refuse)")
    print(f"evidence: {artifacts.PROMOTION}/verdict.md, and in MLflow under promotion/ in each challenger's run")


# --- answering -------------------------------------------------------------------------------------------------------


def approve(params: Params, sigma: float, version: str | None, by: str) -> None:
    promotions = promotions_at(params, connect(params), sigma)
    move = promotions.approve(version, by)
    print(f"{promotions.name}: v{move.champion} is champion now{previous(move.previous)}")


def keep_champion(params: Params, sigma: float, version: str | None, by: str) -> None:
    promotions = promotions_at(params, connect(params), sigma)
    print(f"{promotions.name}: v{promotions.keep_champion(version, by)} is refused, the champion stays")


def rollback(params: Params, sigma: float, by: str) -> None:
    promotions = promotions_at(params, connect(params), sigma)
    move = promotions.rollback(by)
    print(f"{promotions.name}: v{move.champion} is champion again, v{move.left} is not promoted without approval")


def previous(number: str | None) -> str:
    return f", v{number} the previous one" if number else ""


# --- command line ----------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.promote", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(action=decide)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    commands.add_parser("decide", help="judge every noise level and act on it (the default)")
    for name, action, help_text in (
        ("approve", approve, "make the version in question champion"),
        ("refuse", keep_champion, "close the question; the champion stays"),
        ("rollback", rollback, "make the previous champion champion again"),
    ):
        command = commands.add_parser(name, help=help_text, description=help_text)
        command.set_defaults(action=action)
        command.add_argument("--sigma", type=float, required=True, help="one of the noise_levels of params.yaml")
        if action is not rollback:
            command.add_argument("--version", metavar="N", help="version of the model (default: the one in question)")
        command.add_argument(
            "--by", default=getpass.getuser(), metavar="NAME", help="who decides (default: %(default)s)"
        )
    return parser.parse_args()


def main() -> None:
    wait_briefly()
    options = vars(arguments())
    action: Callable[..., None] = options.pop("action")
    params = load_params()
    if "sigma" in options and options["sigma"] not in params.sigmas:
        allowed = ", ".join(params.noise_levels)
        print(f"error: --sigma is {options['sigma']}: params.yaml has the noise levels {allowed}", file=sys.stderr)
        sys.exit(BAD_PARAMETERS)
    watchdog.watch()
    once = in_one_line("nothing is lost, run the same command again")(action)
    sys.exit(guard(once, params, **options))


if __name__ == "__main__":
    main()
