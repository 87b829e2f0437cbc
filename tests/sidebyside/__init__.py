"""Fairlead beside other durable engines: the same chains of calls, and the same crash exam on each."""
