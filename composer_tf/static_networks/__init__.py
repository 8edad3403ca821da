"""Alternatives to a Composer: a network of one path, or early exits."""
