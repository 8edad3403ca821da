"""What training optimizes, besides the preferences' costs."""
