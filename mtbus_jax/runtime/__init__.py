"""What the machine asks for: devices, processes, host memory, compiled programs kept on disk."""
