"""Images and labels: where they come from, the form they are prepared in, what must hold of them."""
