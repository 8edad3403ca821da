"""What one would train instead of a Composer: one path, or early exits."""
