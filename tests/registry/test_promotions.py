"""Questions and verdicts, and looking up who is champion: an SQLite store, and a server over HTTP."""

import time

import pytest

from components.registry import versions
from components.registry.aliases import EXPIRES, KEY
from tests.support.registry import aliases, judged, state, with_versions

pytestmark = pytest.mark.medium


# --- questions ----------------------------------------------------------------------------------------------------


def test_a_question_is_open_until_it_is_answered(promotions, tmp_path):
    judged(promotions, "2", "1", tmp_path, outcome="HOLD")
    assert promotions.open_question() is None
    assert promotions.ask("2", hours=1) == promotions.ask("2", hours=2) == "open"
    assert promotions.open_question().version in ("2", 2)
    assert promotions.approve(None, "ann").champion == "2"
    assert aliases(promotions) == {"champion": "2", "previous": "1"}
    assert promotions.open_question() is None
    with pytest.raises(ValueError, match="has no open question: name a judged version with --version, or run"):
        promotions.approve(None, "ann")


def test_a_refused_version_is_not_asked_about_again(promotions, tmp_path):
    judged(promotions, "2", "1", tmp_path, outcome="HOLD")
    promotions.ask("2", hours=1)
    assert promotions.keep_champion(None, "ann") == "2"
    assert promotions.ask("2", hours=1) == "refused"
    judged(promotions, "2", "1", tmp_path)
    assert state(promotions, "2") == "refused", "whatever a later verdict says"
    assert aliases(promotions) == {"champion": "1"}


def test_silence_closes_a_question_and_keeps_the_champion(promotions, tmp_path):
    judged(promotions, "2", "1", tmp_path, outcome="HOLD")
    promotions.ask("2", hours=0.3 / 3600)
    time.sleep(0.4)
    assert promotions.open_question() is None
    assert state(promotions, "2") == promotions.ask("2", hours=1) == "expired"
    assert aliases(promotions) == {"champion": "1"}
    assert promotions.version("2").tags[EXPIRES].endswith("Z")
    judged(promotions, "2", "1", tmp_path, outcome="HOLD")
    assert promotions.ask("2", hours=1) == "open", "a new verdict is a new question"


def test_a_newer_question_or_a_promotion_supersedes_an_open_one(promotions, tmp_path):
    for number in "23":
        judged(promotions, number, "1", tmp_path, outcome="HOLD")
        promotions.ask(number, hours=1)
    assert (state(promotions, "2"), state(promotions, "3")) == ("superseded", "open")
    promotions.approve("2", "ann")
    assert (state(promotions, "2"), state(promotions, "3")) == ("approved", "superseded")


def test_a_stored_verdict_is_found_by_its_key_alone(promotions, tmp_path):
    judged(promotions, "2", "1", tmp_path, outcome="HOLD")
    version = promotions.version("2")
    assert promotions.stored_verdict(version, "key2", tmp_path) == {"verdict": "HOLD"}
    assert promotions.stored_verdict(version, "another", tmp_path) is None
    assert version.tags[KEY] == "key2"


# --- looking up ---------------------------------------------------------------------------------------------------


def test_the_champion_says_what_it_is(tracking, promotions):
    found = versions.champion(tracking.client, promotions.name)
    assert (found.version, found.champion, found.sigma, found.acr) == ("1", True, 0.5, 0.112345)
    assert found.certified_accuracy == pytest.approx({0.0: 0.9, 0.25: 0.65, 0.5: 0.4})
    assert (found.failure_prob, found.n, found.data_sha256, found.git_commit) == (0.001, 1000, "data1", "commit1")


def test_the_best_model_for_a_radius_is_the_most_accurate_of_those_certified_there(tracking, promotions):
    """Versions 1, 2, 3 have certified accuracy .65, .55, .45 at .25, and clean accuracy .91, .92, .93."""
    client, name = tracking.client, promotions.name.removesuffix("-sigma-0.5")
    for at_least, version in ((0.4, "3"), (0.5, "2"), (0.6, "1")):
        assert versions.best(client, name, 0.25, at_least, champions_only=False).version == version
        assert versions.best(client, name, 0.25, at_least).version == "1", "of the champions"
    with pytest.raises(
        ValueError, match=r"certified accuracy at radius 0\.25 is at most 0\.650 \(.*v1\), and 0\.7 is asked"
    ):
        versions.best(client, name, 0.25, 0.7, champions_only=False)
    with pytest.raises(ValueError, match=r"radius is 0\.3: no champion of .* only on 0, 0\.25, 0\.5: name one"):
        versions.best(client, name, 0.3, 0.1)
    with pytest.raises(ValueError, match=r"there is no registered model nobody-sigma-\.\.\.: run the register stage"):
        versions.best(client, "nobody", 0.25, 0.1)


def test_a_model_without_a_champion_is_refused_by_name(tracking, tmp_path):
    promotions = with_versions(tracking, tmp_path, 1)
    with pytest.raises(ValueError, match=r"has no champion yet: run `python -m pipelines\.promote`"):
        versions.champion(tracking.client, promotions.name)
