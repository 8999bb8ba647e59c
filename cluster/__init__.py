"""From one machine to many: workers on a Ray cluster, jobs for Slurm, and what all of it would cost."""
