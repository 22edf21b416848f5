"""BERT-large question answering on SQuAD v1.1, compatible with MLPerf Inference."""
