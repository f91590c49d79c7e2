"""Links of pages to files outside of docs/, which work in the checkout, to where the site has them."""

from __future__ import annotations

from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page as the site wants it."""
    return markdown.replace("](../experiments/", "](experiments/")
