"""The portal protocol as pure functions: what is asked, what may be, what is answered. No store, no socket."""
