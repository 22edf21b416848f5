"""Llama 2 70B answering instructions of OpenOrca, compatible with MLPerf Inference."""
