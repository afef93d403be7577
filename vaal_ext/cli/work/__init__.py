"""What commands do once their options are read, where no room of the library does it."""
