"""Where the packages are: the folders of the repository's root are `aldm.codec` and so on when installed."""

from setuptools import find_packages, setup

ROOTS = ("format", "codec", "bench", "cli")
found = find_packages(include=[pattern for root in ROOTS for pattern in (root, f"{root}.*")])

setup(
    packages=["aldm", *(f"aldm.{package}" for package in found)],
    package_dir={"aldm": "aldm"} | {f"aldm.{root}": root for root in ROOTS},
)
