"""What every room builds on: errors, files, components, seeds, the device, the console. Imports nothing above it."""
