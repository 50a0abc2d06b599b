"""Check a data set before computing numbers from it."""

from __future__ import annotations

from ultraad.data.audit.report import AuditReport, ClassCount, Finding, Severity, TagCount
from ultraad.data.audit.run import audit

__all__ = ["AuditReport", "ClassCount", "Finding", "Severity", "TagCount", "audit"]
