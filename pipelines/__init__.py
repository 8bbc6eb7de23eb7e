"""The stages: each reads files, calls components and writes files. dvc.yaml says which."""
