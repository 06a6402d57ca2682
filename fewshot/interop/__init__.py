"""Data, tasks and learners of other packages, used with ours. Each module needs the package that it is named after."""
