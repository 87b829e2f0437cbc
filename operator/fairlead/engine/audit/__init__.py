"""The audit: what was asked, decided and done, as a chain of records per run that shows whether it was touched."""

from fairlead.engine.audit.trail import AuditHead, Trail
from fairlead.engine.audit.verify import Problem, readable, verify_anchors, verify_run

__all__ = ["AuditHead", "Problem", "Trail", "readable", "verify_anchors", "verify_run"]
