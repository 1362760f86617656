"""The experiments travel in the wheel, as `lightning_metatok/shipped/`; in the repository they stay at its top."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("conf", "sweeps")


class BuildWithExperiments(build_py):
    """`build_py`, and conf/ and sweeps/."""

    def run(self) -> None:
        super().run()
        for name in () if self.editable_mode else SHIPPED:
            target = Path(self.build_lib) / "lightning_metatok" / "shipped" / name
            shutil.copytree(Path(__file__).parent / name, target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithExperiments})
