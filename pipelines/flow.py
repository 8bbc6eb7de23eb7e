"""Run the graph as a Prefect flow, once or on a schedule; see `pipelines.operation.flow`."""

from pipelines.operation.flow import main

if __name__ == "__main__":
    main()
