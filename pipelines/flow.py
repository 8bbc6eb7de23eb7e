"""`python -m pipelines.flow`: see `pipelines.operation.flow`."""

from pipelines.operation.flow import main

if __name__ == "__main__":
    main()
