"""Runs: a config and a folder in, trained models, numbers and pictures out."""
