"""The report of a run as one HTML page that needs no network: texts, charts as SVG, pictures as data URLs."""
