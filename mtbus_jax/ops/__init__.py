"""Array operations with a faster equal of what XLA makes of them; each says when it is used."""
