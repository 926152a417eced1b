"""Where example pictures come from: the web, a diffusion model, or folders that are already there."""
