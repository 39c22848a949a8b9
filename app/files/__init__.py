"""Reading and writing files on behalf of clients, inside the folders they may use."""
