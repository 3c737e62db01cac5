"""Names the packages; all metadata is in setup.cfg, which cannot map folders beside `find:`."""

from setuptools import find_packages, setup

# Recipes and export profiles stay in folders at the top, and are installed inside the package.
SHIPPED = {"finegrain._recipes": "recipes", "finegrain._export": "export"}

setup(packages=[*find_packages(include=["finegrain*"]), *SHIPPED], package_dir=SHIPPED)
