"""Look at a data set before believing any number computed from it."""

from __future__ import annotations

from ultraad.data.audit.report import AuditReport, ClassCount, Finding, Severity, TagCount
from ultraad.data.audit.run import audit

__all__ = ["AuditReport", "ClassCount", "Finding", "Severity", "TagCount", "audit"]
