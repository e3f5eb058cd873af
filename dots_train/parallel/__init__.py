"""Many processes: the mesh, the experts' all-to-all, the pipeline. The model knows none of this."""
