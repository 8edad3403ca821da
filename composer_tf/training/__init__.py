"""Runs: config and folder in; trained models, numbers and pictures out."""
