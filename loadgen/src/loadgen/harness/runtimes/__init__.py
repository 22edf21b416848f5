"""What backends of one framework share: devices, number formats, threads, sessions, weights, each with clear errors.

One module a framework, which is imported inside functions only: the harness needs none of them. `devices` and
`checkpoints` serve all.
"""
