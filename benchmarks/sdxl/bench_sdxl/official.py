"""Where the official files lie below `model/` and `data/`. Imports nothing, so that help is instant."""

PIPE = "checkpoint_pipe"
"""The folder of networks and tokenizers; without it, they lie in `model/` itself."""
SCHEDULERS = ("checkpoint_scheduler/scheduler", "scheduler")
"""Folders of `scheduler_config.json`, below `model/`: MLCommons' and Hugging Face's."""

CAPTIONS = "captions/captions.tsv"
LATENTS = ("latents/latents.npy", "latents/latents.pt")
"""The same numbers twice; the first that is there is read."""
STATISTICS = "val2014.npz"
CALIBRATION = "calibration/captions.txt"
"""Ids of the captions that a quantised model may be calibrated with."""

CLIP = "scorers/ViT-B-32.pt"
INCEPTION = "scorers/pt_inception-2015-12-05-6726825d.pth"
"""Below `model/`: what an accuracy test is scored by, and nothing else needs."""

WEIGHTS = {
    "text_encoder": "model",
    "text_encoder_2": "model",
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
}
"""Folder below PIPE -> its weights file, without `.safetensors` or `.fp16.safetensors`."""
UNET = f"{PIPE}/unet/{WEIGHTS['unet']}.safetensors"
