"""What a data set and its splits may be called."""

from __future__ import annotations

import re

SPLITS = ("train", "val", "test")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""A data set's name, which is also that of its folder below the data root."""
