"""Tests of ultraad.io."""  # noqa: A005  # mirrors the package
