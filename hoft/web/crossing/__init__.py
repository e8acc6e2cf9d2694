"""What crosses a link: messages as parts, cut and put together."""
