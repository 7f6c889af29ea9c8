"""How ranks divide the work: data parallelism or DeepSpeed, with their optimisers."""
