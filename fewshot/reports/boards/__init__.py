"""Leaderboards: rows gathered from run folders, ranked, and written as CSV, Markdown, HTML and text."""
