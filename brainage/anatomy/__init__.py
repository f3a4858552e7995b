"""MNI space: the grid, atlases, regions and projections between spaces."""
