"""How a setting is made to outlive a reboot: one module per mechanism, by distribution where they differ."""
