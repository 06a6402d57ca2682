"""Many experiments that belong together: which they are, and each of them made, resumed or left alone."""
