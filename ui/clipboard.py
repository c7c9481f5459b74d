"""Pasting pictures into a file uploader, which takes them by drag and drop and from disk alone.

The uploader then has them as if they had been chosen: with its limits, its list, and a way to remove them. As the value
of a component they would be kept from the list, and more than 18 MB would have Streamlit close the connection. Its
st.chat_input does take them, but only while one writes in it.
"""

from ui.components import component

_component = component("clipboard")


def paste_into(uploader: str, *, key: str) -> None:
    """Show a button that pastes pictures into a file uploader, as Ctrl+V then does anywhere on the page.

    uploader: the key of an st.file_uploader on the same page: of letters, digits, hyphens and underscores.
    """
    _component(data={"uploader": uploader}, key=key)
