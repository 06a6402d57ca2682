"""What pyproject.toml cannot say: the folders `data` and `episodes` go into the package, under fewshot/_shipped/.

Each file pattern is named: prepared data sets (gigabytes) and run folders also land in `data`.

An editable installation reads both folders where they are (core/shipped.py). Without them setuptools installs it by a
path; else by an import hook. Python asks hooks last, so it would take a checkout's own folder, if that is named fewshot
and lies in the working folder, for the package.
"""

import sys

from setuptools import find_packages, setup

editable = "editable_wheel" in sys.argv
shipped = {} if editable else {"fewshot._shipped.data": "data", "fewshot._shipped.episodes": "episodes"}

setup(
    packages=[*find_packages(include=["fewshot", "fewshot.*"]), *shipped],
    package_dir={"": "."} if editable else shipped,
    package_data={
        "fewshot": ["recipes/*.toml", "recipes/*/*.toml", "reports/boards/*.html", "py.typed"],
        "fewshot._shipped.data": ["README.md", "glyphs.npz", "glyphs.LICENSE.txt", "splits/*.csv", "splits/README.md"],
        "fewshot._shipped.episodes": ["README.md", "*.json"],
    },
    include_package_data=False,  # or whatever MANIFEST.in names would come, too
)
