"""What is reported of a promotion whose call ended before its report: verdict.json, and a webhook that listens."""

import json
from types import SimpleNamespace

import pytest

from components.params import Promote
from components.registry.model_files import WEIGHTS_SHA256
from components.registry.promotions import Promotions
from components.registry.tracking import CONTENT
from pipelines import promote
from pipelines.champion_challenger import find_contest
from tests.support.registry import local, store  # noqa: F401  # fixtures
from tests.tools.test_notify import webhook  # noqa: F401  # a fixture

pytestmark = pytest.mark.medium

POLICY = Promote(min_gain=0.005, radii=[0.5], confidence=0.95, min_clean_accuracy=0.5, max_abstention=0.5)
LEVELS = ("0.5", "1.0")


@pytest.fixture
def project(local, tmp_path, monkeypatch):  # noqa: F811
    """Two noise levels whose second versions have verdicts that promote them; the first versions are champions."""
    monkeypatch.chdir(tmp_path)
    name = local.client.get_experiment(local.experiment_id).name
    params = SimpleNamespace(sigmas=[0.5, 1.0], register=SimpleNamespace(name=name), promote=POLICY)
    monkeypatch.setattr(promote, "connect", lambda params: local)
    for sigma in params.sigmas:
        register(local, f"{name}-sigma-{sigma}", "1")
        judge(local, params, sigma)
    promote.decide(params)
    for sigma in params.sigmas:
        register(local, f"{name}-sigma-{sigma}", "2")
        judge(local, params, sigma)
    return params


def register(tracking, name, content, **more):
    if content == "1":
        tracking.client.create_registered_model(name)
    run = tracking.client.create_run(tracking.experiment_id).info.run_id
    tags = {CONTENT: content, WEIGHTS_SHA256: content} | more
    version = tracking.client.create_model_version(name, f"runs:/{run}/model", run, tags=tags)
    tracking.challenge(name, version)


def judge(tracking, params, sigma):
    contest = find_contest(params, tracking, sigma)
    against = contest.champion and str(contest.champion.version)
    number = str(contest.challenger.version)
    evidence = {"verdict": "PROMOTE", "reasons": ["better"], "model": contest.promotions.name, "challenger": number}
    (folder := promote.artifacts.PROMOTION.parent / "evidence").mkdir(parents=True, exist_ok=True)
    (folder / "verdict.json").write_text(json.dumps(evidence | {"champion": against}))
    contest.promotions.store_verdict(contest.challenger, "PROMOTE", against, contest.key, folder)


@pytest.mark.parametrize(("code", "new"), [("a", False), ("b", True), (None, True)])
def test_the_same_weights_in_a_network_of_other_code_are_something_new(local, tmp_path, code, new):  # noqa: F811
    name = local.client.get_experiment(local.experiment_id).name
    params = SimpleNamespace(sigmas=[0.5], register=SimpleNamespace(name=name), promote=POLICY)
    model = f"{name}-sigma-0.5"
    register(local, model, "1", network_code_sha256="a")
    local.client.set_registered_model_alias(model, "champion", "1")
    register(local, model, "2", **{WEIGHTS_SHA256: "1"}, **({"network_code_sha256": code} if code else {}))
    contest = find_contest(params, local, 0.5)
    assert (contest.nothing_new is None) == new


def reported():
    levels = json.loads((promote.artifacts.PROMOTION / "verdict.json").read_text())["levels"]
    return [(level["sigma"], level["challenger"], level["verdict"], level["promoted"]) for level in levels]


def fail_at(monkeypatch, what, number, failure):
    """Make the call of this number of a method or function fail."""
    owner, name = what
    called, original = [], getattr(owner, name)

    def failing(*arguments, **options):
        called.append(1)
        if len(called) == number:
            raise failure
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize(
    ("what", "number"), [((Promotions, "promote"), 2), ((promote, "write_json"), 1), ((promote.notify, "send"), 1)]
)
def test_a_promotion_whose_call_ended_before_its_report_is_reported_by_the_next_one(
    project,
    webhook,  # noqa: F811
    monkeypatch,
    what,
    number,
):
    """Ended between the two levels, before the report, and between its file and the webhook."""
    with monkeypatch.context() as patch:
        fail_at(patch, what, number, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            promote.decide(project)
    assert webhook.heard == []
    promote.decide(project)
    assert reported() == [("0.5", "2", "PROMOTE", True), ("1.0", "2", "PROMOTE", True)]
    (heard,) = webhook.heard
    assert [(level["challenger"], level["promoted"]) for level in heard["levels"]] == [("2", True)] * 2
    page = (promote.artifacts.PROMOTION / "verdict.md").read_text()
    assert page.count("v2 is champion now") == 2
    promote.decide(project)
    assert reported() == [("0.5", "2", "NONE", False), ("1.0", "2", "NONE", False)]
    assert len(webhook.heard) == 1


def test_a_promotion_that_the_webhook_could_not_be_told_of_is_told_later(project, webhook):  # noqa: F811
    webhook.status = 500
    promote.decide(project)
    webhook.heard.clear()
    webhook.status = 200
    promote.decide(project)
    promote.decide(project)
    (heard,) = webhook.heard
    assert [(level["challenger"], level["promoted"]) for level in heard["levels"]] == [("2", True)] * 2
