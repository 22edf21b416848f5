"""Llama on PyTorch, with a batch that it keeps full.

`model`: the network. `cache`: keys and values in pages. `weights`: from files to layers. `parallel`: one model on
several devices. `engine`: one step of all requests. `backend`: what the benchmark sees. On a GPU: `kernels`, `fused`,
the network by these, and `gpu`, its steps.
"""
