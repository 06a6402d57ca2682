"""What pyproject.toml cannot say: the folders `data` and `episodes` go into the package, under fewshot/_shipped/.

Each file pattern is named: prepared data sets (gigabytes) and run folders also land in `data`.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["fewshot", "fewshot.*"]), "fewshot._shipped.data", "fewshot._shipped.episodes"],
    package_dir={"fewshot._shipped.data": "data", "fewshot._shipped.episodes": "episodes"},
    package_data={
        "fewshot": ["recipes/*.toml", "recipes/*/*.toml", "reports/boards/*.html", "py.typed"],
        "fewshot._shipped.data": ["README.md", "glyphs.npz", "glyphs.LICENSE.txt", "splits/*.csv", "splits/README.md"],
        "fewshot._shipped.episodes": ["README.md", "*.json"],
    },
    include_package_data=False,  # or whatever MANIFEST.in names would come, too
)
