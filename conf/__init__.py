"""The YAML files of the commands: agents, cores, environments and experiments."""
