"""Real parts for tests: servers that are started on free ports and in temporary folders, and stopped again."""
