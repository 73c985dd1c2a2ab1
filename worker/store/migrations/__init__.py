"""The store's history: one file a step, applied by `tocsin db upgrade`."""
