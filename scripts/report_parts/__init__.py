"""The parts of scripts/report.py: what was measured, figures, and the page."""
