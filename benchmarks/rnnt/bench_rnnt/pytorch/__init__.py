"""RNN-T on PyTorch: waveforms to features, the model of `model.py`, and greedy decoding of a batch."""
