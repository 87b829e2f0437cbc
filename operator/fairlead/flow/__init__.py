"""The functional core: plan, expressions, journal fold, what-next, back-off, static checks.

Pure: no I/O, no clock, no randomness, no Kubernetes, no HTTP. The engine drives it.
"""
