"""Wide-MNIST: a digit in the left or in the right half of a wide image."""
