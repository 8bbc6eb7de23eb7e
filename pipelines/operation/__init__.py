"""Running the stages on a schedule: Prefect flows, git worktrees, questions to a person."""
