"""Network emulation: link profiles and scenarios. Stands alone."""
