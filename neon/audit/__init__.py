"""What of a training is silently wrong: looked for at the first steps, and whenever somebody asks."""

from neon.audit.findings import Audit, AuditWarning, Finding

__all__ = ["Audit", "AuditWarning", "Finding"]
