"""The version of xmrcae: the build, the files that models are saved in and the citation read it here."""

__version__ = "0.1.0"
