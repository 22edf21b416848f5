"""3D U-Net on KiTS19: kidneys and their tumours in CT volumes, compatible with MLPerf Inference."""
