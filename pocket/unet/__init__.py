"""Small Stable Diffusion backbones in the published layouts, their few-step LoRAs, and image prompts."""
