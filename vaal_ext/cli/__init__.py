"""The commands `vaal-ext NAME`: their options, what they print, how they end."""
