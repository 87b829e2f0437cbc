"""Container images, and models for this machine, from locked packages; with or without Docker, standard library only.

`python -m images build` prepares on the host whatever comes from elsewhere (`packages.py`, `base.py`), builds with the
engine that is there (`builder.py`), and does nothing again whose inputs are the same (`cache.py`). `catalog.py` says
what is in each image; `models.py` lays out the models of the examples for use without a cluster.
"""
