"""The training loop, its optimizer, and the process that runs it."""
