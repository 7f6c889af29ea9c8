"""Export of a student to formats that run without fourds_dist."""
