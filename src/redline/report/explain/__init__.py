"""`redline explain`: why some requests of a stored run were slow."""
