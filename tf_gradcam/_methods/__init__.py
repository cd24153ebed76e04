"""What turns activations, gradients and scores into a map."""
