"""The classifier as a thing: networks by name, trained weights as files, the card beside them."""
