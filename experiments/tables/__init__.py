"""Many runs side by side, and the tables and plots that come of them."""
