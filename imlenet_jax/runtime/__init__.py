"""JAX as this machine has it: devices, precision, compiled programs that are kept, memory."""
