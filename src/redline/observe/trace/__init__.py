"""What a profiler wrote down, as columns: Chrome traces of torch.profiler, and Nsight Systems' SQLite export."""
