"""What is compared: objectives, sequences, and variants with their parameters fixed."""
