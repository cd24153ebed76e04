"""What is explained, and its way into the compiled function."""
