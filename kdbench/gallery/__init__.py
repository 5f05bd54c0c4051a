"""What an objective is and does, told from the registry: facts, pictures, docs/objectives.md."""
