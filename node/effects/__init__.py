"""What a round machine wants done, done: one module for each kind of work."""
