"""A trained run that answers, and why it answered so."""
