"""DeLo."""
