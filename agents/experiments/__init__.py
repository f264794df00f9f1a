"""Experiments as data: settings, one resumable runner, one report."""
