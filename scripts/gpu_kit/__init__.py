"""Parts of `scripts/bench_gpu.py`: what proves and measures segdet on an NVIDIA GPU."""
