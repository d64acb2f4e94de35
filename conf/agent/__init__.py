"""The agents, and under ``core`` their memories."""
