"""From a file to the models in it: detection, the RAM model cache, patchers."""
