"""The model: networks by name, trained weights as files, the card beside them."""
