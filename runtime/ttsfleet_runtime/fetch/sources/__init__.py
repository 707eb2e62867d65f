"""What a source consists of: `listing` says how it is told, the other modules ask each kind of source."""
