"""What trainings minimise, one a file; and the times and weights that denoising draws on."""
