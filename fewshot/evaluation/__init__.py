"""Evaluation: embed each image once, solve thousands of episodes, say how sure we are."""
