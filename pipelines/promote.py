"""Compare each noise level's challenger with its champion, and move the aliases of what is proven better.

`decide` (the default) judges, stores the evidence, promotes what it may and asks a person about the rest; `approve` and
`refuse` answer, `rollback` makes the previous champion champion again. Each may be repeated: what an interrupted call
has not done, the next one does. Exit code 0 whatever the verdict.
"""

import argparse
import getpass
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")  # all requests here are small: a silent server is noticed in
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # some ten seconds

from components import notify
from components.certification import table
from components.data.prepared import load_description
from components.evaluation.report import text_table
from components.evaluation.verdict import Certified, Verdict, comparable, differences, judge, markdown
from components.files import locked, read_json, write_json, write_text
from components.identity import hash_value
from components.params import Params, Promote, level_key
from components.registry.aliases import BY, CHALLENGER, CHAMPION, EXPIRES, STAYS, OutdatedVerdict, Promotions, Version
from components.registry.certified import WEIGHTS_SHA256, fetch_weights, registered_table, table_of
from components.registry.tracking import CONTENT, Tracking, TrackingError
from pipelines import artifacts
from pipelines.command import BAD_PARAMETERS, STOPPED_EARLY, StoppedEarly, guard, load_params

ATTEMPTS = 3
"""How often verdicts are made anew when another process changes the champion meanwhile."""


@dataclass(frozen=True)
class Contest:
    """One noise level: who challenges whom."""

    sigma: float
    promotions: Promotions
    challenger: Version
    champion: Version | None
    policy: Promote

    @property
    def nothing_new(self) -> str | None:
        """Why there is nothing to decide, if so."""
        if self.champion is None:
            return None
        if str(self.champion.version) == str(self.challenger.version):
            return f"v{self.champion.version} is champion, and nothing newer is registered"
        if self.champion.tags.get(WEIGHTS_SHA256) == self.challenger.tags.get(WEIGHTS_SHA256):
            return f"v{self.challenger.version} holds the weights of the champion, v{self.champion.version}"
        return None

    @property
    def key(self) -> str:
        """What the verdict is a function of."""
        rules = {name: value for name, value in asdict(self.policy).items() if not name.startswith("approval")}
        champion = self.champion and [str(self.champion.version), self.champion.tags[CONTENT]]
        return hash_value([self.challenger.tags[CONTENT], champion, rules])


@dataclass(frozen=True)
class Level:
    """What became of one noise level; a line of verdict.json."""

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
    expires: str | None = None
    """Until when it is open: UTC, ISO 8601."""
    key: str | None = None
    evidence: dict[str, Any] | None = None


class CannotBeCertified(Exception):
    """The champion does not fit the present images."""


def decide(params: Params) -> None:
    """Judge every noise level, store the evidence, promote or ask; verdict.json and .md say what became of it."""
    if artifacts.in_experiment():
        raise ValueError("this is an experiment, which promotes nothing: apply it and run the pipeline first")
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
    write_json(artifacts.PROMOTION / "verdict.json", {"levels": [asdict(level) for level in levels]})
    write_text(artifacts.PROMOTION / "verdict.md", page(levels))
    show(levels)
    told = [level.key for level in levels if level.key]
    if told:
        facts: dict[str, object] = {
            "levels": [{k: v for k, v in asdict(level).items() if k != "evidence"} for level in levels]
        }
        notify.send("verdict", facts, hash_value(told), artifacts.notifications())


def connect(params: Params) -> Tracking:
    return Tracking(artifacts.tracking_store(), params.register.name)


def promotions_at(params: Params, tracking: Tracking, sigma: float) -> Promotions:
    name = f"{params.register.name}-sigma-{level_key(sigma)}"
    return Promotions(tracking.client, name, artifacts.promotion_locks())


# --- judging ---------------------------------------------------------------------------------------------------------


def find_contest(params: Params, tracking: Tracking, sigma: float) -> Contest:
    promotions = promotions_at(params, tracking, sigma)
    promotions.mend()
    aliases = promotions.aliases()
    if CHALLENGER not in aliases:
        raise ValueError(f"{promotions.name} has no challenger: run the register stage")
    champion = promotions.version(aliases[CHAMPION]) if CHAMPION in aliases else None
    return Contest(sigma, promotions, promotions.version(aliases[CHALLENGER]), champion, params.promote)


def verdicts(params: Params, tracking: Tracking) -> list[tuple[Contest, dict[str, Any] | None]]:
    """Every noise level with its stored evidence, or None where there is nothing to decide.

    A verdict that is stored stands; those that are not yet made are made together.
    """
    contests = [find_contest(params, tracking, sigma) for sigma in params.sigmas]
    evidence: dict[float, dict[str, Any]] = {}
    pairs: dict[float, tuple[Certified, Certified | None, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for contest in contests:
            if contest.nothing_new:
                continue
            stored = contest.promotions.stored_verdict(contest.challenger, contest.key, Path(folder))
            if stored:
                evidence[contest.sigma] = stored
            else:
                pairs[contest.sigma] = pair(params, tracking, contest)
    judged = judge({level_key(sigma): (new, old) for sigma, (new, old, _) in pairs.items()}, params.promote)
    for contest in contests:
        if contest.sigma in pairs:
            _, champion, note = pairs[contest.sigma]
            verdict = judged[level_key(contest.sigma)]
            evidence[contest.sigma] = store(contest, verdict, champion, note)
    return [(contest, evidence.get(contest.sigma)) for contest in contests]


def pair(params: Params, tracking: Tracking, contest: Contest) -> tuple[Certified, Certified | None, str]:
    """The tables of challenger and champion; `anew` where the latter was made for this, or why there is none."""
    challenger = registered_table(tracking.client, contest.challenger)
    if contest.champion is None:
        return challenger, None, ""
    champion = table_of(tracking.client, contest.champion)
    if champion and comparable(champion, challenger):
        return challenger, champion, ""
    try:
        return challenger, certify_anew(contest, challenger), "anew"
    except CannotBeCertified as reason:
        return challenger, None, str(reason)


def certify_anew(contest: Contest, challenger: Certified) -> Certified:
    """The champion certified on the present images by the present procedure, which are the challenger's.

    The weights are kept in the state root, the rows where every certification keeps them: a second call samples
    nothing.

    Raises:
        CannotBeCertified: the champion was trained for other shapes, classes, or another sigma.
        ValueError: images or procedure here are not the challenger's; the registry does not hold the weights.
    """
    assert contest.champion
    here = load_description(artifacts.DESCRIPTION)
    if here.test_sha256 != challenger.identity["images_sha256"]:
        raise ValueError(
            f"{artifacts.TEST_SPLIT} is not what {contest.promotions.name} v{contest.challenger.version} was certified "
            "on, so that the champion cannot be certified on it too: run the pipeline here (`dvc repro`), then this"
        )
    folder = artifacts.champion_certified_anew(contest.champion.tags[WEIGHTS_SHA256])
    with locked(folder.with_suffix(".lock")):
        card = fetch_weights(contest.champion, folder / "model")
        if (card.image_shape, card.classes) != (here.image_shape, here.classes):
            raise CannotBeCertified(
                f"champion v{contest.champion.version} was trained on other image shapes or classes, so that the two "
                "cannot be compared"
            )
        certify(contest.sigma, folder / "model", folder / "certificates")
        identity = read_json(folder / "certificates" / table.IDENTITY, "run this again")
        champion = Certified(table.read(folder / "certificates" / "table.tsv"), identity)
    if differing := differences(champion.identity, challenger.identity):
        raise ValueError(
            f"certification here differs from that of {contest.promotions.name} v{contest.challenger.version} in "
            f"{', '.join(differing)} (here and there): run the pipeline here (`dvc repro`), then this"
        )
    return champion


def certify(sigma: float, model: Path, to: Path) -> None:
    """Run the certify stage on other weights, in as many processes as it is told to."""
    print(f"certifying the champion anew at sigma {level_key(sigma)}: images or procedure have changed", flush=True)
    command = [sys.executable, "-m", "pipelines.certify", "--sigma", level_key(sigma)]
    code = subprocess.run([*command, "--model", str(model), "--to", str(to)]).returncode
    if code == STOPPED_EARLY:
        raise StoppedEarly("stopped while the champion was certified anew")
    if code:
        raise ValueError(
            f"certifying the champion anew at sigma {level_key(sigma)} failed, exit code {code}: see above"
        )


def store(contest: Contest, verdict: Verdict, champion: Certified | None, note: str) -> dict[str, Any]:
    """Put the evidence of a fresh verdict into the challenger's run; the evidence."""
    if note not in ("", "anew") and verdict.outcome == "PROMOTE":  # on the floors alone, as if there were no champion
        verdict = replace(verdict, outcome="HOLD", reasons=[note])
    values = asdict(verdict)
    evidence = {
        "sigma": level_key(contest.sigma),
        "model": contest.promotions.name,
        "challenger": str(contest.challenger.version),
        "champion": str(contest.champion.version) if contest.champion else None,
        "verdict": values.pop("outcome"),
        **values,
        "champion_certified_anew": note == "anew",
        "policy": asdict(contest.policy),
    }
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        write_json(files / "verdict.json", evidence)
        write_text(files / "verdict.md", markdown(evidence))
        if champion and note == "anew":
            champion.table.to_csv(files / "champion_table.tsv", sep="\t", index=False)
            write_json(files / "champion_identity.json", champion.identity)
        against = evidence["champion"]
        contest.promotions.store_verdict(contest.challenger, evidence["verdict"], against, contest.key, files)
    return evidence


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
        return f"v{level.challenger} is champion now"
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


def refuse(params: Params, sigma: float, version: str | None, by: str) -> None:
    promotions = promotions_at(params, connect(params), sigma)
    print(f"{promotions.name}: v{promotions.refuse(version, by)} is refused, the champion stays")


def rollback(params: Params, sigma: float, by: str) -> None:
    promotions = promotions_at(params, connect(params), sigma)
    move = promotions.rollback(by)
    print(f"{promotions.name}: v{move.champion} is champion again, v{move.left} is not promoted without approval")


def ask(params: Params, sigma: float, flow_run: str) -> None:
    promotions = promotions_at(params, connect(params), sigma)
    promotions.note_flow_run(flow_run)
    print(f"{promotions.name}: the open question names the flow run {flow_run}")


def previous(number: str | None) -> str:
    return f", v{number} the previous one" if number else ""


# --- command line ----------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(action=decide)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    commands.add_parser("decide", help="judge every noise level and act on it (the default)")
    for action, help_text in (
        (approve, "make the version that is asked about champion"),
        (refuse, "close the question; the champion stays"),
        (rollback, "make the previous champion champion again"),
        (ask, "note on the open question which flow run waits for its answer"),
    ):
        command = commands.add_parser(action.__name__, help=help_text, description=help_text)
        command.set_defaults(action=action)
        command.add_argument("--sigma", type=float, required=True, help="one of the noise_levels of params.yaml")
        if action is ask:
            command.add_argument("--flow-run", required=True, metavar="ID")
            continue
        if action in (approve, refuse):
            command.add_argument("--version", metavar="N", help="of the model (default: the one that is asked about)")
        command.add_argument(
            "--by", default=getpass.getuser(), metavar="NAME", help="who says so (default: %(default)s)"
        )
    return parser.parse_args()


def main() -> None:
    options = vars(arguments())
    action: Callable[..., None] = options.pop("action")
    params = load_params()
    if "sigma" in options and options["sigma"] not in params.sigmas:
        allowed = ", ".join(params.noise_levels)
        print(f"error: --sigma is {options['sigma']}: params.yaml has the noise levels {allowed}", file=sys.stderr)
        sys.exit(BAD_PARAMETERS)
    sys.exit(guard(reaching_mlflow, action, params, **options))


def reaching_mlflow(action: Callable[..., None], params: Params, **options: Any) -> None:
    try:
        action(params, **options)
    except TrackingError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"MLflow did not answer ({reason}): nothing is lost, run the same command again") from None


if __name__ == "__main__":
    main()
