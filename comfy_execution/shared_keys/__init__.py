"""Keys of results that hold on other machines."""
