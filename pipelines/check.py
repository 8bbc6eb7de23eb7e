"""Check params.yaml as a whole, before anything runs."""

from pipelines.cli import run_stage

if __name__ == "__main__":
    run_stage(lambda params: None, __doc__)
