"""GPT-J on PyTorch, with a batch of beam searches that it keeps full.

`model`: the network. `weights`: from files to layers. `cache`: keys and values, prompts' once for all beams. `beams`:
how beams live and end. `engine`: one step of all searches. `backend`: what the benchmark sees. On a GPU: `kernels`,
`fused`, the network by these, and `gpu`, its steps.
"""
