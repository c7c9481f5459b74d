"""Help in choosing, before a run and after it."""
