"""The policy decision: pure. What may happen (`decide`), and how grants become RBAC (`grants`).

No I/O: whoever asks brings a snapshot of everything that the decision depends on.
"""
