"""The mathematics of diffusion, on torch alone. Read in this order: level, path, prediction, estimate, denoiser,
guidance, solver, sample, noise; then spacing, condition, edit, space, objective, registry and mixture.

For every Gaussian path ``x = alpha x0 + sigma eps`` sampling follows ``dx = x0_hat d(alpha) + eps_hat d(sigma)``.
There is no time in it: a noise level that carries both alpha and sigma is all that a solver needs.
"""
