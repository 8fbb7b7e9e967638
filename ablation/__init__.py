"""How the champion was found: networks and recipes, each a row, scored on held-out training images only."""
