"""Examples of what may be brought into the pipeline. Nothing here is part of a result unless params.yaml names it."""
