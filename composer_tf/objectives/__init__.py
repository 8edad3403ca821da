"""What training maximises or minimises, beside the preferences' costs."""
