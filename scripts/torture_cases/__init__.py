"""What scripts/torture.py does to runs: kills (kills.py) and damage (damage.py)."""
