"""Ask a model on a task: prompts under conditions, what was right, and how it is shown."""
