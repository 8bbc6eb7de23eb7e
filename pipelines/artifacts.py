"""Defines every path once. Relative paths start at the workspace that a command runs in."""

import os
from pathlib import Path
from typing import Any

import yaml

from components.params import level_key
from components.tools.hashing import hash_value
from pipelines.checkout import main_project, path_in_repository

PARAMS = Path("params.yaml")
OUTPUTS = Path("outputs")
"""Folder of all stage outputs."""

BROUGHT = OUTPUTS / "brought.json"
"""Hashes of what a recipe brings along beside the data."""
TRAIN_SPLIT = OUTPUTS / "data/prepared/train"
TEST_SPLIT = OUTPUTS / "data/prepared/test"
VAL_SPLIT = OUTPUTS / "data/prepared/val"
"""For choosing, never for certificates; empty where the source has none."""
DESCRIPTION = OUTPUTS / "data/prepared/description.json"
VALIDATION = OUTPUTS / "data/validation.json"
DATA_PAGE = OUTPUTS / "data/data.html"
"""Shows the images, and those that are broken; also written when the data is not fit for training."""

METRICS = OUTPUTS / "evaluation/metrics.json"
CURVES = OUTPUTS / "evaluation/curves.csv"
P_LOWER_ECDF = OUTPUTS / "evaluation/p_lower_ecdf.csv"
REPORT = OUTPUTS / "evaluation/report"
"""Folder of the pages for people: report.html, report.md, and certified_accuracy and p_lower_ecdf as .png."""
REPORT_PAGE = REPORT / "report.html"
PROMOTION = OUTPUTS / "evaluation/promotion"
"""Folder of the last verdicts, verdict.json and verdict.md; not a stage output."""
ATTACKS = OUTPUTS / "attacks"
"""Folder of what attacks on certified images found; not a stage output."""
ATTACKS_PAGE = "report.html"
"""Beside what they found: the run's report with it."""

SOURCE = Path(__file__).parents[1]
"""Folder of the code, whatever the workspace."""
PLOT_TEMPLATE = SOURCE / "components/evaluation/certified_accuracy.json"
P_LOWER_TEMPLATE = SOURCE / "components/evaluation/p_lower_ecdf.json"
PUBLISHED = SOURCE / "components/evaluation/published.csv"
PUBLISHED_CURVES = SOURCE / "components/evaluation/published_curves.csv"
"""Published figures, by data set, method and sigma; of the one-class bound."""


VALUES = [SOURCE / f"components/{name}.py" for name in ("params", "prepare", "train", "methods")]
"""The code that defines the parameters' defaults. DVC cannot see defaults, so it reruns a stage when this code changes.
Keys and identities hash the values instead, so the rerun stage finds what it has already computed."""


def code_of(stage: str) -> list[Path]:
    """The code that a stage's result depends on: its dependencies in dvc.yaml that are neither data nor `VALUES`."""
    stages = yaml.safe_load((SOURCE / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    deps = stages[stage].get("do", stages[stage])["deps"]
    code = [SOURCE / name for name in deps if name.startswith(("components/", "pipelines/"))]
    return [path for path in code if path not in VALUES]


def model(sigma: float) -> Path:
    """Weights and card: what certification reads."""
    return OUTPUTS / "models" / level_key(sigma)


def history(sigma: float) -> Path:
    """One row per epoch."""
    return OUTPUTS / "training_logs" / level_key(sigma) / "history.csv"


def provenance(sigma: float) -> Path:
    """Commit, hardware and versions of the training: facts that no later stage's result depends on."""
    return OUTPUTS / "training_logs" / level_key(sigma) / "provenance.json"


def certificates(sigma: float) -> Path:
    return OUTPUTS / "certificates" / level_key(sigma) / "table.tsv"


def certificates_identity(sigma: float) -> Path:
    """All that the table depends on: weights, data, procedure, seed."""
    return OUTPUTS / "certificates" / level_key(sigma) / "identity.json"


def attacks(sigma: float) -> Path:
    """Certified and attacked radius, one row per image."""
    return ATTACKS / level_key(sigma) / "table.tsv"


def attacks_identity(sigma: float) -> Path:
    """What the attacks are a function of: weights, table of certificates, settings, seed."""
    return ATTACKS / level_key(sigma) / "identity.json"


def state_root() -> Path:
    """Where tracking store, checkpoints and partial tables live: beside the project in the main checkout, also seen
    from a git worktree or from the copy that `dvc exp run --temp` works in. Nothing here is an output of a stage."""
    folder = Path(os.environ["DVC_ROOT"]).resolve() if in_experiment() else Path.cwd()
    return main_project(folder) / ".state"


def in_experiment() -> bool:
    """Whether DVC runs this process as an experiment; it then names the main checkout in DVC_ROOT."""
    return "DVC_EXP_NAME" in os.environ and "DVC_ROOT" in os.environ


def source_root(root: str | None) -> Path:
    """Where a source's files lie: `prepare.root`, counted from the main checkout, or the folder of downloads."""
    return state_root().parent / Path(root or "data/raw").expanduser()


def weights_root() -> Path:
    """Where a relative path of `train.weights` starts: the main checkout, as that of `prepare.root`."""
    return state_root().parent


def tracking_store() -> Path:
    """Folder of the MLflow store that is used without MLFLOW_TRACKING_URI."""
    return state_root() / "mlflow"


def scheduled() -> Path:
    """The git worktree of scheduled runs."""
    return state_root() / "scheduled"


def project_in(worktree: Path) -> Path:
    """The project's folder in a worktree: the same as here, where the repository may hold more than the project."""
    return worktree / path_in_repository(Path.cwd())


def all_checkpoints() -> Path:
    return state_root() / "checkpoints"


def checkpoints(training_key: str) -> Path:
    return all_checkpoints() / training_key[:16]


def partial_tables(root: str | None = None) -> Path:
    """Folder of all rows: here, or where the user has it."""
    return Path(root).expanduser() if root else state_root() / "partial_tables"


def row_key(identity: dict[str, Any]) -> str:
    """Name of the folder of a table's rows. The choice of images changes no row, so it is not part of the key."""
    of_rows = {name: value for name, value in identity.items() if name not in ("every", "images")}
    return hash_value(of_rows)[:16]


def partial_table(identity: dict[str, Any]) -> Path:
    return partial_tables() / row_key(identity)


def registration_lock() -> Path:
    return state_root() / "promotion" / "register.lock"


def promotion_locks() -> Path:
    """Folder of the locks under which aliases move, one per registered model."""
    return state_root() / "promotion"


def notifications() -> Path:
    """Folder of the markers for notifications that were already sent."""
    return state_root() / "notifications"


def all_certified_anew() -> Path:
    return state_root() / "certified_anew"


def champion_certified_anew(weights_sha256: str) -> Path:
    """Folder of a champion's weights and of its certificates on the present images by the present procedure."""
    return all_certified_anew() / weights_sha256[:16]
