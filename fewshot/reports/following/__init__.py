"""A training while it goes on: its lines, logs and profiles, and another terminal that watches it."""
