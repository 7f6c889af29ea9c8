"""What a run is made of, as types: `layout` (its folder, stages and networks), `events` (what happens in it, a line of
metrics.jsonl each) and `failures` (why it stops and how its workers fail).

Nothing here knows of networks, Ray or W&B; training, launch, sweep, compare and results all import these modules.
"""
