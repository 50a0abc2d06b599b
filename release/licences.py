"""Licences of the packages in a CycloneDX bill of materials."""

from __future__ import annotations

import re
from typing import Any

Package = tuple[str, str, str]
"""Name, version, licences."""

SEEN = {"protobuf": "BSD-3-Clause", "ray": "Apache-2.0", "torchvision": "BSD-3-Clause"}
"""Looked up by hand, where a package does not say it in a form that can be read."""

_REFUSED = re.compile(r"\bA?GPL|GNU (Affero )?General Public", re.IGNORECASE)  # \b: the LGPL may be used


def listed(bill: dict[str, Any]) -> list[Package]:
    """(name, version, licences) of every package, in alphabetical order; ``unknown`` if it says none."""
    found = []
    for part in bill.get("components", []):
        said = [_name(entry) for entry in part.get("licenses", [])]
        licences = SEEN.get(part["name"]) or "; ".join(filter(None, said)) or "unknown"
        found.append((part["name"], part.get("version", ""), licences))
    return sorted(found, key=lambda row: row[0].lower())


def refused(packages: list[Package]) -> list[str]:
    """The packages under the GPL or AGPL, or under an unknown licence."""
    return [f"{name}: {what}" for name, _, what in packages if what == "unknown" or _REFUSED.search(what)]


def _name(entry: dict[str, Any]) -> str:
    """The short name in one entry; a whole text only says that there is one."""
    licence = entry.get("license", {})
    return entry.get("expression") or licence.get("id") or (licence.get("name") or "").partition("\n")[0]
