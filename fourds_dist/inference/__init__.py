"""Use of a finished student: load, evaluate, predict, export."""
