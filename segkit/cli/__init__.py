"""The commands, one file each: parse without torch, then build and run."""
