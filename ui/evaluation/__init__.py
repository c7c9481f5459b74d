"""The views of the Evaluate page: each shows one side of a run's predictions."""
