"""What people look at: models in, pictures, lines or JSON out; nothing here reads or connects."""
