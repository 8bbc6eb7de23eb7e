"""What may be brought into the pipeline: networks and a training method, as params.yaml names them."""
