"""The frame of every HTML page that segkit writes: one file, no script, no request."""

from html import escape

from segkit.errors import printable


def web_page(title: str, style: str, body: str, schemes: str = "light dark") -> str:
    """A whole page.

    Args:
        title: In plain words.
        style: CSS.
        body: HTML.
        schemes: The colour schemes that the style has.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="{schemes}">
<link rel="icon" href="data:,">
<title>{escape(printable(title))}</title>
<style>{style}</style>
</head>
<body>
{printable(body)}
</body>
</html>
"""
