"""DLRM-DCNv2 click prediction on multi-hot Criteo, compatible with MLPerf Inference."""
