"""What operators see: metrics in shared memory, access and audit lines, the process's own log."""
