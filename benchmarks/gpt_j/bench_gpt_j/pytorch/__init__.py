"""GPT-J on PyTorch, with a batch of beam searches that it keeps full.

`model`: the network. `weights`: from files to layers. `cache`: keys and values, prompts' once for all beams. `engine`:
one step of all searches. `backend`: what the benchmark sees. How beams live and end is `bench_gpt_j.beams`.
"""
