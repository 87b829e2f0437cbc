"""Each contestant is a process that executes chains of calls durably; `talk.py` says how it is spoken to.

They run in an environment of their own (`locks/sidebyside.txt`) and import nothing of this repository but `talk`, all
but Fairlead, which is the engine of local mode.
"""
