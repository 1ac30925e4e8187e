"""The version of xmrcae: that of the installed package, which its build took from a git tag."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("xmrcae")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0.0+unknown"
