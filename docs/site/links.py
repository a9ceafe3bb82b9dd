#!/usr/bin/env python3
# Follows every internal link of the built site, and finds what a page would fetch from elsewhere.
"""usage: links.py SITE [--except FOLDER/]

Fails if a link or image in SITE leads to no file, a fragment to no element, or a page loads a script, a style, an image
or a font from another host: the site has to work from a folder, without a network. Links into FOLDER/ are not followed
if the site has no such folder.
"""

import html.parser
import pathlib
import re
import sys
import urllib.parse

# What is fetched when a page is shown, and what only when somebody follows it.
FETCHED = {("img", "src"), ("script", "src"), ("source", "src"), ("iframe", "src"), ("object", "data")}
FOLLOWED = {("a", "href")}
FETCHED_RELATIONS = {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "modulepreload"}


class Page(html.parser.HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.ids, self.fetched, self.followed = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids.update(value for key, value in attributes if key == "id" or (tag == "a" and key == "name"))
        for key, value in attributes:
            if value is None:
                continue
            is_link = (tag, key) == ("link", "href")
            if (tag, key) in FETCHED or (is_link and FETCHED_RELATIONS & set((values.get("rel") or "").split())):
                self.fetched.append(value)
            elif (tag, key) in FOLLOWED or is_link:
                self.followed.append(value)


def problems(site, absent):
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site} has no pages"
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        for url in page.fetched + page.followed:
            parts = urllib.parse.urlsplit(url)
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                if url in page.fetched:
                    yield f"{name} loads {url}"
                continue
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            if absent and target.is_relative_to((site / absent).resolve()):
                continue
            if not target.is_file():
                yield f"{name}: {url} leads to no file"
            elif parts.fragment and target in pages and urllib.parse.unquote(parts.fragment) not in pages[target].ids:
                yield f"{name}: {url} leads to no element"
    for path in sorted(site.rglob("*.js")):
        if re.search(r"^import\b", path.read_text(encoding="utf-8"), re.MULTILINE):
            yield f"{path.relative_to(site)} imports a module, which browsers refuse to load from a folder"
    for path in sorted(site.rglob("*.css")):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for url in re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", text):
            url = url[0] or url[1]
            parts = urllib.parse.urlsplit(url)
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                yield f"{path.relative_to(site)} loads {url}"
            elif not (path.parent / parts.path).is_file():
                yield f"{path.relative_to(site)}: {url} leads to no file"


def main(arguments):
    if len(arguments) not in (1, 3) or (len(arguments) == 3 and arguments[1] != "--except"):
        sys.exit(__doc__)
    site = pathlib.Path(arguments[0])
    absent = arguments[2] if len(arguments) == 3 and not (site / arguments[2]).is_dir() else None
    found = list(problems(site, absent))
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main(sys.argv[1:])
