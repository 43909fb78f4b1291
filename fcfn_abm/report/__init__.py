"""What it means, from records alone. Import the modules: figures load matplotlib, tables do not."""
