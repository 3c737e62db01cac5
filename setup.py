"""Names the packages; all metadata is in setup.cfg, which cannot map folders beside `find:`."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

# Recipes and export profiles stay in folders at the top, and are installed inside the package.
SHIPPED = {"finegrain._recipes": "recipes", "finegrain._export": "export"}

# The demo estimates its time from what it took on a reference machine.
MEASURED, INSTALLED = "benchmarks/results/demo.json", "finegrain/_results/demo.json"


class Build(build_py):
    """Builds the package, and copies the one benchmark result that it needs."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, INSTALLED)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(MEASURED, target)


setup(
    cmdclass={"build_py": Build},
    packages=[*find_packages(include=["finegrain*"]), *SHIPPED],
    package_dir=SHIPPED,
)
