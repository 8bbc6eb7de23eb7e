"""What the pages for people share: one file each, without requests, light and dark, on a phone and on paper."""
