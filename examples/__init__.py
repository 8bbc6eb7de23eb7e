"""What a user can bring: a network and a training method, as `train.network` and `train.method` name them."""
