"""The external market participant: tariffs and bills; its totals are in `coordinator.storage.totals`."""
