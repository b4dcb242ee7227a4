"""Networks that denoise, one a file.

Called as ``network(x, noise_label, cond, edits=(), read=()) -> (output, features)``: x (B, C, h, w), noise_label (B,).
"""
