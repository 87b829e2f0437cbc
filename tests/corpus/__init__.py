"""Journals as released versions wrote them, and what they came to.

`VERSION.sql` is the text of a store with runs of every kind of step: ended, open, and killed in the middle of a call.
`VERSION.json` is what its writer made of it. `python -m tests.corpus` records those of this version, once per release;
a file that is here stays as it is. `tests/unit/engine/test_corpus.py` reads them all.
"""
