"""Real words for the `text` rendering: categories, which name lists, and their items."""

CATEGORIES = {
    "Fruits": ("orange", "peach", "banana", "plum", "apple", "pear", "kiwi", "grape", "lemon"),
    "Tools": ("hammer", "wrench", "level", "pliers", "saw", "drill", "file", "clamp", "chisel"),
}
