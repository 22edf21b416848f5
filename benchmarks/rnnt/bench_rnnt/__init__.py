"""RNN-T speech recognition on LibriSpeech, compatible with MLPerf Inference."""
