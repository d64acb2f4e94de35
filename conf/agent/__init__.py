"""The agents, and under ``core`` their memories, under ``encoder`` what stands in front of these."""
