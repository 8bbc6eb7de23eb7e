"""What every part may use and none is about: files, hashes, device, progress, wording, provenance, notifications."""
