"""`python -m pipelines.serve`: what does not start is one line."""

import sys

import mlflow
import pytest
import torch

from pipelines import serve
from pipelines.serve import required_token
from tests.support.serving import make_classifier

MODEL = "models:/trial@champion"


@pytest.fixture
def refusal(monkeypatch, capfd):
    """Starts the service; the line that it ends with."""

    def start():
        monkeypatch.setattr(sys, "argv", ["serve", "--model", MODEL])
        monkeypatch.setattr(serve.uvicorn, "run", lambda *_, **__: pytest.fail("it serves"))
        with pytest.raises(SystemExit) as ended:
            serve.main()
        assert ended.value.code == 1
        said = capfd.readouterr()
        (line,) = said.err.splitlines()
        assert said.out == ""
        return line

    return start


def test_a_tracking_server_that_is_gone_is_one_line(refusal, monkeypatch):
    gone = "http://127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", gone)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(gone)
    try:
        line = refusal()
    finally:
        mlflow.set_tracking_uri(None)
    assert line.startswith("error: MLflow did not answer (API request to http://127.0.0.1:9/")
    assert "Connection refused" in line


def test_a_network_that_gives_a_logit_that_is_not_finite_is_one_line(refusal, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # it is not asked

    def load(uri, limits):
        return make_classifier(last_bias=torch.nan)

    monkeypatch.setattr(serve, "load_classifier", load)
    assert refusal() == (
        f"error: the network of {MODEL} gives logits that are not finite: train it anew and register that"
    )


def test_others_than_this_machine_are_not_let_in_without_a_token(monkeypatch):
    monkeypatch.delenv("SERVING_TOKEN", raising=False)
    assert required_token("127.0.0.1") is required_token("::1") is required_token("localhost") is None
    for host in ("0.0.0.0", "::", "192.168.0.7", "example.org"):
        with pytest.raises(ValueError, match="set SERVING_TOKEN in the environment"):
            required_token(host)
    monkeypatch.setenv("SERVING_TOKEN", "")
    assert required_token("127.0.0.1") is None
    with pytest.raises(ValueError, match="set SERVING_TOKEN in the environment"):
        required_token("0.0.0.0")
    monkeypatch.setenv("SERVING_TOKEN", "short")
    with pytest.raises(ValueError, match="at least 16"):
        required_token("0.0.0.0")
    monkeypatch.setenv("SERVING_TOKEN", "long enough to be one")
    assert required_token("0.0.0.0") == required_token("127.0.0.1") == "long enough to be one"
