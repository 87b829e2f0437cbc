"""`make demo`: the main job, live. cluster.py does it on a real cluster, local.py in one process without any."""
