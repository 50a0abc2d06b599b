"""Text banks that ship with the package: one YAML file per organ."""
