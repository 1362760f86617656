"""Commands and expressions of small grammars."""
