"""What everything else stands on: errors, text, paths, jobs, the machine."""
