"""What a run writes: records, log, directory, archive."""
