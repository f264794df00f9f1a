"""Experiments: what is compared, as data, with a resumable runner, statistics, reports and speed measurements."""
