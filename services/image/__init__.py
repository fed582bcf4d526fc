"""The image service: pictures by latent diffusion, continuously batched."""
