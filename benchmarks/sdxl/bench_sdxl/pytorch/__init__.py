"""SDXL on PyTorch, each network written out: parameter names are those of the official safetensors files.

`text_encoder` -> `unet`, stepped by `euler` -> `vae`; `pipeline` joins them, `checkpoint` reads them, `backend` serves.
"""
