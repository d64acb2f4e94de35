"""How often the commands survive what happens to them: mistakes, faults, signals, damaged and hostile files."""
