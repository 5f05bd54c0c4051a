"""Hold everything fixed except the objective, and say with evidence which objective wins."""
