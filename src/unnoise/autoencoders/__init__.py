"""Networks between pictures and latents, one a file."""
