"""The commands of ``gransam``, one a file: parse, call, print; heavy imports inside the function."""
