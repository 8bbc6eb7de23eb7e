"""What a page for people says, found without a browser."""

from html.parser import HTMLParser

VOID = {"meta", "link", "img", "input", "br"}


class Parsed(HTMLParser):
    """Text and pictures per section, addresses, ids, and tags that do not match."""

    def __init__(self, page):
        super().__init__()
        self.open, self.text, self.addresses, self.ids, self.alts, self.section = [], {}, [], [], [], ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "section":
            self.section = values["id"]
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [values[name] for name in ("src", "href", "action", "xlink:href") if name in values]
        self.ids += [values["id"]] if "id" in values else []
        self.alts += [values.get("alt")] if tag == "img" else []

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.section = "" if tag == "section" else self.section

    def handle_data(self, data):
        self.text[self.section] = self.text.get(self.section, "") + data
