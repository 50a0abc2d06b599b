"""XML without its dangers: no document type, so no entities that expand or name files."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ultraad.errors import DataError


def load_xml(file: Path) -> Element:
    """The root element of an XML file.

    Raises:
        DataError: If it cannot be read, is no XML, or declares a document type.
    """

    def refuse(*_: object) -> NoReturn:
        msg = f"{file} declares a document type (DOCTYPE), which annotation files do not need; remove it"
        raise DataError(msg)

    tree = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = tree.start
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.data
    try:
        parser.Parse(file.read_bytes(), True)  # noqa: FBT003 - expat takes no keywords
        root: Element = tree.close()
    except (OSError, expat.ExpatError, ValueError, LookupError, AssertionError) as e:
        msg = f"cannot read {file}: {e}. Wanted an XML file"
        raise DataError(msg) from e
    return root
