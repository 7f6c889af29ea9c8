"""Write datasets: tar shards in WebDataset's layout, an index of each shard, and one manifest."""
