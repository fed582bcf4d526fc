"""Files of a folder into a collection: finding them, sending them, telling how far it is."""
