"""How the embedded backbone was made. Imports ultraad; ultraad never imports this."""
