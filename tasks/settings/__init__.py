"""params.yaml: its sections, checked and frozen, and the proposal that `init` writes."""
