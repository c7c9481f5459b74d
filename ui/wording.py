"""Text that Loupe did not write: file names, values from a URL or a file, what an error quotes."""

import re

import streamlit as st

WORD_JOINER = "\u2060"  # invisible


def plain(text: object) -> str:
    """Make Markdown that shows a text as it is: no markup, link, image, formula or icon comes of it."""
    escaped = re.sub(r"[\\`*\[\]!<>$~|#&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", str(text))
    # Icons, colours and bare links are found after the escapes are gone: these keep them from being seen.
    escaped = re.sub(r":(?=\S)", ":" + WORD_JOINER, escaped)
    return re.sub(r"\bwww\.", f"www{WORD_JOINER}.", escaped)


def show_problem(problem: object) -> None:
    """Show what went wrong, in words that may quote anything."""
    st.error(plain(problem), icon=":material/error:")
    for address in re.findall(r"https?://[^\s,]+", str(problem)):
        st.code(address.rstrip("."), language=None)  # to be copied: above it is no link, and has what prevents one
