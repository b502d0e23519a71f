"""`outbox up`: local servers, relays and a live stream, to watch and to break; what arrives is checked."""
