"""What a recipe costs on this machine: what is measured, and the arithmetic from there to minutes."""
