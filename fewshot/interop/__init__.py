"""Neighbours: data, tasks and learners of other packages with ours. A module needs the package of its name."""
