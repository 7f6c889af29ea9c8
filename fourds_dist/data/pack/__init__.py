"""Writing datasets: tar shards in WebDataset's layout, an index beside each, and a manifest over all."""
