"""ComfyUI's nodes: they declare and delegate."""
