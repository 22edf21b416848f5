"""GPT-J 6B summarising news of CNN/DailyMail by beam search, compatible with MLPerf Inference."""
