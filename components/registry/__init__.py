"""The registry: where runs and models live in MLflow, who is champion, and how a version is loaded again.

MLflow reads its settings from the environment, some of them when it is imported. They are set here, before any module
of this package imports it; variables that the caller has set are kept.
"""

import os

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# a server that is down is noticed within seconds, not after MLflow's minutes of retries
_PATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
_BRIEF = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "4"}
_SET_HERE = [name for name in _PATIENT if not os.environ.get(name)]

for _name, _value in (_QUIET | _PATIENT).items():
    if not os.environ.get(_name):  # an empty variable is an unset one
        os.environ[_name] = _value


def wait_briefly() -> None:
    """For commands whose requests are all small: notice a silent server within some ten seconds."""
    os.environ.update({name: _BRIEF[name] for name in _SET_HERE})
