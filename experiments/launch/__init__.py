"""From a command line to a checked configuration to agent and environments: what every command shares."""
