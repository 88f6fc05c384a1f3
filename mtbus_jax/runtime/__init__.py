"""What depends on the machine: devices, processes, host memory, compiled programs on disk."""
